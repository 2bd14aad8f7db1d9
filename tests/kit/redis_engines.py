"""One node's Redis engines without a server around them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from kit.redis import fresh_prefix
from smartlink.server.cluster.brokers.base import Control, Publication
from smartlink.server.cluster.brokers.redis import BROKER_SCRIPTS, RedisBroker
from smartlink.server.cluster.history.redis import HISTORY_SCRIPTS, RedisHistory
from smartlink.server.cluster.idempotency.redis import RECEIPT_SCRIPTS, RedisReceipts
from smartlink.server.cluster.presence.base import Change
from smartlink.server.cluster.presence.lua import ROSTER_SCRIPTS
from smartlink.server.cluster.presence.redis import RedisRoster
from smartlink.server.cluster.redis.commands import RedisCommands
from smartlink.server.cluster.redis.naming import Names
from smartlink.server.runtime.metrics import Metrics
from smartlink.server.settings.redis_address import Kind, parse_url

__all__ = ["RedisEngines", "make_engines", "redis_engines"]


@dataclass
class RedisEngines:
    """The engines, and what they told."""

    commands: RedisCommands
    names: Names
    broker: RedisBroker
    roster: RedisRoster
    history: RedisHistory
    receipts: RedisReceipts
    metrics: Metrics
    heard: list[Publication | Control] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)

    async def start(self) -> None:
        await self.broker.start(self.heard.append)
        await self.roster.start(self.changes.append)

    async def stop(self) -> None:
        await self.roster.stop()
        await self.broker.stop()

    async def die(self) -> None:
        """As `kill -9`: nothing is said any more, nothing taken out."""
        tasks = [*self.roster._tasks, self.broker._task, self.commands._task]
        for task in tasks:
            if task is not None:
                task.cancel()
        for task in tasks:
            if task is not None:
                await asyncio.wait((task,))
        self.roster._on_change = None
        self.broker._deliver = None


def make_engines(url: str, prefix: str | None = None) -> RedisEngines:
    """Engines for `url`, not yet started."""
    address = parse_url(url)
    scripts = (*BROKER_SCRIPTS, *ROSTER_SCRIPTS, *HISTORY_SCRIPTS, *RECEIPT_SCRIPTS)
    commands, names, metrics = RedisCommands(address, scripts), Names(prefix or fresh_prefix()), Metrics()
    return RedisEngines(
        commands,
        names,
        RedisBroker(commands, names, metrics, is_sharded=address.kind is Kind.CLUSTER),
        RedisRoster(commands, names),
        RedisHistory(commands, names),
        RedisReceipts(commands, names),
        metrics,
    )


@asynccontextmanager
async def redis_engines(url: str, prefix: str | None = None, *, is_started: bool = True) -> AsyncIterator[RedisEngines]:
    """Engines for `url`, stopped at the end."""
    engines = make_engines(url, prefix)
    if is_started:
        await engines.start()
    try:
        yield engines
    finally:
        await engines.stop()
