"""One node's Redis engines without a server around them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from kit.redis import fresh_prefix
from smartlink.server.cluster.brokers.base import Control, Publication
from smartlink.server.cluster.brokers.kept_bytes import MAX_APP_BYTES
from smartlink.server.cluster.brokers.redis import RedisBroker
from smartlink.server.cluster.brokers.redis_scripts import BROKER_SCRIPTS
from smartlink.server.cluster.history.redis import HISTORY_SCRIPTS, RedisHistory
from smartlink.server.cluster.idempotency.redis import IDEMPOTENCY_SCRIPTS, RedisIdempotency
from smartlink.server.cluster.presence.base import Change
from smartlink.server.cluster.presence.lua import PRESENCE_SCRIPTS
from smartlink.server.cluster.presence.redis import RedisPresence
from smartlink.server.cluster.redis.commands import RedisCommands
from smartlink.server.cluster.redis.naming import Names
from smartlink.server.cluster.sessions.redis import SESSION_SCRIPTS
from smartlink.server.runtime.metrics import Metrics
from smartlink.server.settings.redis_address import Kind, parse_url

__all__ = ["RedisEngines", "make_engines", "redis_engines"]


@dataclass
class RedisEngines:
    """The engines, and what they told."""

    commands: RedisCommands
    names: Names
    broker: RedisBroker
    presence: RedisPresence
    history: RedisHistory
    idempotency: RedisIdempotency
    metrics: Metrics
    heard: list[Publication | Control] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)

    async def start(self) -> None:
        await self.broker.start(self.heard.append)
        await self.presence.start(self.changes.append)

    async def stop(self) -> None:
        await self.presence.stop()
        await self.broker.stop()

    async def die(self) -> None:
        """As `kill -9`: nothing is said any more, nothing taken out."""
        tasks = [*self.presence._tasks, self.broker._task, self.commands._task]
        for task in tasks:
            if task is not None:
                task.cancel()
        for task in tasks:
            if task is not None:
                await asyncio.wait((task,))
        self.presence._on_change = None
        self.broker._deliver = None


def make_engines(url: str, prefix: str | None = None, *, max_app_bytes: int = MAX_APP_BYTES) -> RedisEngines:
    """Engines for `url`, not yet started."""
    address = parse_url(url)
    scripts = (*BROKER_SCRIPTS, *PRESENCE_SCRIPTS, *HISTORY_SCRIPTS, *IDEMPOTENCY_SCRIPTS, *SESSION_SCRIPTS)
    commands, names, metrics = RedisCommands(address, scripts), Names(prefix or fresh_prefix()), Metrics()
    return RedisEngines(
        commands,
        names,
        RedisBroker(commands, names, metrics, is_sharded=address.kind is Kind.CLUSTER, max_app_bytes=max_app_bytes),
        RedisPresence(commands, names),
        RedisHistory(commands, names),
        RedisIdempotency(commands, names),
        metrics,
    )


@asynccontextmanager
async def redis_engines(
    url: str, prefix: str | None = None, *, is_started: bool = True, max_app_bytes: int = MAX_APP_BYTES
) -> AsyncIterator[RedisEngines]:
    """Engines for `url`, stopped at the end."""
    engines = make_engines(url, prefix, max_app_bytes=max_app_bytes)
    if is_started:
        await engines.start()
    try:
        yield engines
    finally:
        await engines.stop()
