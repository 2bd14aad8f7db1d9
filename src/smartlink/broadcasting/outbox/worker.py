"""A worker process for your application: sends recorded events and prunes old ones, until it is stopped.

asyncio.run(run_worker(engine, tables, Broadcaster.from_settings()))
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Iterator, Sequence

from sqlalchemy.ext.asyncio import AsyncEngine

from smartlink.broadcasting.broadcaster import Broadcaster
from smartlink.broadcasting.outbox.pgbouncer import is_pooled
from smartlink.broadcasting.outbox.relay import Relay, Until
from smartlink.broadcasting.outbox.schedule import Schedule
from smartlink.broadcasting.outbox.tables import OutboxTables
from smartlink.broadcasting.outbox.wakeup import PostgresListener, RedisListener, SqliteListener, Wakeup, WakeupListener

__all__ = ["run_worker"]

_PRUNE_EVERY_S = 3600.0


async def run_worker(
    engine: AsyncEngine,
    tables: OutboxTables,
    broadcaster: Broadcaster,
    *,
    queues: Sequence[str] | None = None,
    concurrency: int = 4,
    until: Until | None = None,
    redis_url: str | None = None,
    listen_engine: AsyncEngine | None = None,
    stop: asyncio.Event | None = None,
    wakeup: Wakeup | None = None,
    send_timeout_s: float = 5.5,
) -> Relay:
    """Send recorded events until SIGTERM or Ctrl-C, or until `stop` is set. Returns the relay, with its counts.

    Any number of workers may run. Commits wake it through Redis if `redis_url` is given (together with
    `Outbox(bell=RedisBell(url))`), else through PostgreSQL's NOTIFY, and within this process through the outbox's
    `wakeup`; it also sweeps. Behind PgBouncer (`engine_for`) it only sweeps, unless `listen_engine` bypasses it.
    `queues`, `concurrency` and `send_timeout_s` (a little more than BROADCAST_TIMEOUT) are passed to the relay. One of
    the workers prunes sent events every hour. Does not close the engines and the broadcaster. Raises
    BroadcastConfigError for an invalid queue name.
    """
    relay = Relay(
        engine,
        tables,
        broadcaster.driver,
        wakeup=wakeup,
        listeners=_listeners(listen_engine or engine, queues, redis_url),
        queues=queues,
        concurrency=concurrency,
        send_timeout_s=send_timeout_s,
    )
    schedule = Schedule(engine, tables)
    schedule.every(_PRUNE_EVERY_S, "prune", relay.prune)
    is_over = asyncio.Event()

    async def relay_until_over(stop: asyncio.Event) -> None:
        try:
            await relay.run(stop, until)
        finally:
            is_over.set()

    with contextlib.nullcontext(stop) if stop is not None else _stop_on_signals() as stopping:
        async with asyncio.TaskGroup() as group:
            group.create_task(relay_until_over(stopping), name="relay")
            group.create_task(schedule.run(is_over), name="schedule")
    return relay


def _listeners(engine: AsyncEngine, queues: Sequence[str] | None, redis_url: str | None) -> list[WakeupListener]:
    if redis_url is not None:
        return [RedisListener(redis_url, None if queues is None else tuple(queues))]
    if engine.dialect.name == "sqlite":
        file = engine.url.database
        return [] if not file or file == ":memory:" else [SqliteListener(file)]
    return [] if is_pooled(engine) else [PostgresListener(engine)]


@contextlib.contextmanager
def _stop_on_signals() -> Iterator[asyncio.Event]:
    """Yield an event that the first SIGINT or SIGTERM sets. A second one has its usual effect."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    signals = (signal.SIGINT, signal.SIGTERM)

    def leave() -> None:
        for each in signals:
            loop.remove_signal_handler(each)

    def on_signal() -> None:
        stop.set()
        leave()

    for each in signals:
        loop.add_signal_handler(each, on_signal)
    try:
        yield stop
    finally:
        leave()
