"""What goes on behind the requests: the relay that sends recorded events, and the jobs that are due now and then.

Workers hear of commits at once: in this process by a bell, elsewhere by PostgreSQL's NOTIFY, or over Redis where
REDIS_URL or REDIS_HOST names one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from smartlink.broadcasting import BroadcastSettings, Driver
from smartlink.broadcasting.outbox import (
    Outbox,
    PostgresListener,
    RedisBell,
    RedisListener,
    Relay,
    Schedule,
    Until,
    Wakeup,
)
from smartlink.broadcasting.outbox.pgbouncer import is_pooled
from smartlink.broadcasting.outbox.wakeup import WakeupListener
from smartlink.portal.shared.db import Database, outbox_tables
from smartlink.portal.shared.redis import redis_url

__all__ = ["WorkerOptions", "outbox", "relay", "work"]

_DRIVERS_OWN_LIMIT_S = 0.5


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """How one worker works: `queues` in the order of their priority, None for all; calls under way at once; when it
    ends by itself."""

    queues: tuple[str, ...] | None = None
    concurrency: int = 4
    until: Until = field(default_factory=Until)


def outbox(settings: BroadcastSettings) -> Outbox:
    """The outbox that requests record in."""
    url = redis_url(settings)
    return Outbox(outbox_tables, notify=url is None, bell=RedisBell(url) if url else None)


def relay(
    database: Database, driver: Driver, settings: BroadcastSettings, wakeup: Wakeup, options: WorkerOptions
) -> Relay:
    """The relay that sends what requests recorded. Raises BroadcastConfigError for a queue that cannot be."""
    return Relay(
        database.engine,
        outbox_tables,
        driver,
        wakeup=wakeup,
        listeners=_listeners(database, settings, options.queues),
        queues=options.queues,
        concurrency=options.concurrency,
        # The driver keeps BROADCAST_TIMEOUT itself and says more about it; this is for one that does not.
        send_timeout_s=settings.timeout_s + _DRIVERS_OWN_LIMIT_S,
    )


async def work(relay: Relay, schedule: Schedule, stop: asyncio.Event, options: WorkerOptions) -> None:
    """Run both until `stop` is set or the relay has done what `options` ask for."""
    is_over = asyncio.Event()

    async def relay_until_over() -> None:
        try:
            await relay.run(stop, options.until)
        finally:
            is_over.set()

    async with asyncio.TaskGroup() as group:
        group.create_task(relay_until_over(), name="relay")
        group.create_task(schedule.run(is_over), name="schedule")


def _listeners(database: Database, settings: BroadcastSettings, queues: Sequence[str] | None) -> list[WakeupListener]:
    url = redis_url(settings)
    if url is not None:
        return [RedisListener(url, None if queues is None else tuple(queues))]
    return [] if database.is_sqlite or is_pooled(database.engine) else [PostgresListener(database.engine)]
