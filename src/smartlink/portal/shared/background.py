"""Background work: the relay that sends recorded events, and scheduled jobs.

Commits wake workers at once: in this process directly, elsewhere through PostgreSQL's NOTIFY, or through Redis if
REDIS_URL or REDIS_HOST is set.
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
    SqliteListener,
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
    """Options of one worker: `queues` in order of priority (None: all), how many calls it makes at once, and when it
    exits by itself."""

    queues: tuple[str, ...] | None = None
    concurrency: int = 4
    until: Until = field(default_factory=Until)


def outbox(settings: BroadcastSettings) -> Outbox:
    """Return the outbox in which requests record events."""
    url = redis_url(settings)
    return Outbox(outbox_tables, notify=url is None, bell=RedisBell(url) if url else None)


def relay(
    database: Database, driver: Driver, settings: BroadcastSettings, wakeup: Wakeup, options: WorkerOptions
) -> Relay:
    """Return the relay that sends recorded events. Raises BroadcastConfigError for an invalid queue name."""
    return Relay(
        database.engine,
        outbox_tables,
        driver,
        wakeup=wakeup,
        listeners=_listeners(database, settings, options.queues),
        queues=options.queues,
        concurrency=options.concurrency,
        # Drivers enforce BROADCAST_TIMEOUT themselves, with better messages; this catches those that do not.
        send_timeout_s=settings.timeout_s + _DRIVERS_OWN_LIMIT_S,
    )


async def work(relay: Relay, schedule: Schedule, stop: asyncio.Event, options: WorkerOptions) -> None:
    """Run the relay and the schedule until `stop` is set or a limit in `options` is reached."""
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
    if database.is_sqlite:
        return [] if database.file is None else [SqliteListener(database.file)]
    return [] if is_pooled(database.engine) else [PostgresListener(database.engine)]
