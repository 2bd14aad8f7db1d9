"""Several relays: no duplicates, and another takes over from one that died or stopped."""

from __future__ import annotations

import asyncio
import datetime as dt
import json

from sqlalchemy import update

from broadcasting.outbox_database import (
    OutboxDatabase,
    envelope,
    numbers,
    pusher_driver,
    relaying,
    taken,
    without_repeats,
)
from kit.pusher_service import HANG, PusherService
from kit.waiting import eventually
from smartlink.broadcasting.testing import FakeDriver


async def test_after_a_relay_is_killed_another_sends_its_unfinished_events(
    database: OutboxDatabase, service: PusherService
) -> None:
    service.answers = lambda _: HANG
    await database.record(*(envelope(number, f"private-{number % 3}") for number in range(14)))
    killed_driver, next_driver = pusher_driver(service), pusher_driver(service)
    killed = asyncio.create_task(database.relay(killed_driver, lease_s=0.5).run(asyncio.Event()))
    await eventually(lambda: service.calls)
    killed.cancel()
    await asyncio.gather(killed, return_exceptions=True)
    await killed_driver.aclose()

    service.answers = lambda _: 200
    await database.record(envelope(14))
    async with relaying(database, next_driver, lease_s=0.5):
        await eventually(lambda: taken(service) == 15)

    for channel in range(3):
        # At least once: on a machine that is slow enough a lease runs out under way.
        assert without_repeats(numbers(service, f"private-{channel}")) == list(range(channel, 14, 3))


async def test_two_relays_never_send_duplicates(database: OutboxDatabase, service: PusherService) -> None:
    drivers = [pusher_driver(service) for _ in range(3)]
    async with relaying(database, *drivers, sweep_s=0.01):
        for number in range(60):
            await database.record(envelope(number))
        await eventually(lambda: taken(service) >= 60)

    assert numbers(service) == list(range(60))


async def test_a_relay_takes_over_from_a_dead_one(database: OutboxDatabase) -> None:
    dead, living = FakeDriver(), FakeDriver()
    await database.record(envelope(1))
    await database.relay(dead, lease_s=1.0).run_once()
    await database.record(envelope(2))

    successor = database.relay(living, lease_s=1.0)
    assert await successor.run_once() == 0
    stop = asyncio.Event()
    task = asyncio.create_task(successor.run(stop))
    await eventually(lambda: living.sent)
    stop.set()
    await task

    assert [json.loads(sent.payload)["n"] for sent in dead.sent + living.sent] == [1, 2]


async def test_a_stopping_relay_hands_over_at_once(database: OutboxDatabase) -> None:
    first, second = FakeDriver(), FakeDriver()
    async with relaying(database, first):
        await database.record(envelope(1))
        await eventually(lambda: first.sent)
    await database.record(envelope(2))

    assert await database.relay(second).run_once() == 1


async def test_a_clock_set_back_does_not_stop_the_relay(database: OutboxDatabase) -> None:
    await database.record(envelope(1))
    tomorrow = dt.datetime.now(dt.UTC) + dt.timedelta(days=1)
    async with database.engine.begin() as connection:
        await connection.execute(
            database.tables.outbox_lease.insert().values(
                name="default:8", holder="somebody", expires_at=tomorrow.timestamp()
            )
        )
        await connection.execute(update(database.tables.recorded_events).values(available_at=tomorrow))

    assert await database.relay(FakeDriver()).run_once() == 1
