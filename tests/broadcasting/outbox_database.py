"""An outbox on a database of its own, and relays that work for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import MetaData, event, select
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine

from kit.pusher_service import PusherService
from smartlink.broadcasting import Delivery, Driver, Envelope
from smartlink.broadcasting.drivers.pusher import PusherDriver
from smartlink.broadcasting.outbox import Outbox, OutboxTables, Relay, define_tables
from smartlink.broadcasting.outbox.service import PROBE_CHANNEL

__all__ = [
    "OutboxDatabase",
    "envelope",
    "numbers",
    "open_database",
    "open_engine",
    "pusher_driver",
    "relaying",
    "service_driver",
    "taken",
    "without_repeats",
]


class OutboxDatabase:
    """The engine, the tables, and an outbox over them."""

    def __init__(self, engine: AsyncEngine, tables: OutboxTables) -> None:
        self.engine = engine
        self.tables = tables
        self.outbox = Outbox(tables)
        self.sessions: async_sessionmaker[AsyncSession] = async_sessionmaker(engine)

    async def record(self, *envelopes: Envelope) -> list[int]:
        """Record in a transaction of their own, commit, wake."""
        async with self.sessions.begin() as session:
            ids = await self.outbox.record(session, envelopes)
        self.outbox.wake()
        return ids

    async def column(self, name: str) -> list[Any]:
        """One column of all recorded events, in the order of their ids."""
        events = self.tables.recorded_events
        async with self.engine.connect() as connection:
            return list(await connection.scalars(select(events.c[name]).order_by(events.c.id)))

    def relay(self, driver: Driver, **options: Any) -> Relay:
        """A relay that the outbox wakes."""
        return Relay(self.engine, self.tables, driver, **{"wakeup": self.outbox.wakeup} | options)


def envelope(
    number: int, channel: str = "private-a", delivery: Delivery = Delivery.DURABLE, socket_id: str | None = None
) -> Envelope:
    """An event whose number shows in its payload."""
    return Envelope(channel, "App\\Events\\E", f'{{"n":{number}}}', socket_id, delivery)


def pusher_driver(service: PusherService, timeout_s: float = 2.0) -> PusherDriver:
    """A driver that reaches `service`."""
    return service_driver(service.port, timeout_s)


def service_driver(port: int, timeout_s: float = 2.0) -> PusherDriver:
    """A driver that reaches the service at `port`."""
    return PusherDriver(
        PusherService.app_id,
        PusherService.key,
        PusherService.secret,
        host="127.0.0.1",
        port=port,
        scheme="http",
        timeout_s=timeout_s,
    )


@asynccontextmanager
async def open_database(url: str) -> AsyncIterator[OutboxDatabase]:
    """Create the tables anew."""
    engine, tables = open_engine(url)
    metadata = tables.recorded_events.metadata
    async with engine.begin() as connection:
        await connection.run_sync(metadata.drop_all)
        await connection.run_sync(metadata.create_all)
    try:
        yield OutboxDatabase(engine, tables)
    finally:
        # Whatever a test left under way may still hold a lock: who comes next drops the tables.
        await engine.dispose()


def open_engine(url: str) -> tuple[AsyncEngine, OutboxTables]:
    """An engine, and the tables as they are or will be there."""
    engine = create_async_engine(url)
    if make_url(url).get_backend_name() == "sqlite":
        event.listen(engine.sync_engine, "connect", _use_wal)
    return engine, define_tables(MetaData())


def _use_wal(connection: Any, _: object) -> None:
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")


@asynccontextmanager
async def relaying(database: OutboxDatabase, *drivers: Driver, **options: Any) -> AsyncIterator[Sequence[Relay]]:
    """A relay at work for each driver; stopped and closed at the end.

    One alone keeps its leases for long: on a machine that is too busy to renew them it would send events again.
    """
    if len(drivers) == 1:
        options.setdefault("lease_s", 60.0)
    stop = asyncio.Event()
    relays = [database.relay(driver, **options) for driver in drivers]
    tasks = [asyncio.create_task(relay.run(stop)) for relay in relays]
    try:
        yield relays
    finally:
        stop.set()
        await asyncio.gather(*tasks)
        for driver in drivers:
            await driver.aclose()


def numbers(service: PusherService, channel: str = "private-a") -> list[int]:
    """The numbers of the events that `service` took on `channel`, in order."""
    return [payload["n"] for payload in service.payloads(channel)]


def taken(service: PusherService) -> int:
    """How many events the service has taken, repeats apart, and those by which the relay asks whether it takes any."""
    return len({(event["channel"], event["data"]) for event in service.taken if event["channel"] != PROBE_CHANNEL})


def without_repeats(values: Sequence[int]) -> list[int]:
    """The values, each once, in the order of their first appearance."""
    return list(dict.fromkeys(values))
