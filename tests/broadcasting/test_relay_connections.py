"""The relay over several connections: an unavailable or slow one does not affect the others."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import replace

from broadcasting.outbox_database import OutboxDatabase, envelope, relaying
from kit.waiting import LIMIT_S, eventually
from smartlink.broadcasting import Broadcaster, BroadcastFailed, BroadcastUnavailable, Driver, Envelope
from smartlink.broadcasting.outbox import Until
from smartlink.broadcasting.outbox.service import PROBE_CHANNEL
from smartlink.broadcasting.testing import FakeDriver


def on_both(*numbers: int, channel: str = "private-a") -> list[Envelope]:
    """Each event twice, first through the connection that fails."""
    return [
        replace(envelope(number, channel), connection=connection)
        for number in numbers
        for connection in ("second", None)
    ]


def driver_over(first: Driver, second: Driver) -> Driver:
    drivers = {"second": second}
    return Broadcaster(first, find_driver=drivers.__getitem__).driver


def numbers(driver: FakeDriver) -> list[int]:
    return [json.loads(sent.payload)["n"] for sent in driver.sent if sent.channel != PROBE_CHANNEL]


class Failing(FakeDriver):
    """Fails as long as it is told to."""

    def __init__(self, failure: Callable[[], BroadcastFailed]) -> None:
        super().__init__()
        self.fails_with = failure()


async def test_an_unavailable_connection_delays_no_other_and_catches_up_in_order(database: OutboxDatabase) -> None:
    first, second = FakeDriver(), Failing(lambda: BroadcastUnavailable("away"))
    async with relaying(database, driver_over(first, second)):
        for number in range(5):
            await database.record(*on_both(number))
        await eventually(lambda: numbers(first) == [0, 1, 2, 3, 4])
        assert numbers(second) == []

        second.fails_with = None
        await eventually(lambda: numbers(second) == [0, 1, 2, 3, 4])
    assert await database.column("state") == ["sent"] * 10


async def test_an_unresponsive_connection_delays_no_other(database: OutboxDatabase) -> None:
    first, second = FakeDriver(), Failing(lambda: BroadcastUnavailable("silent", answered=True))
    async with relaying(database, driver_over(first, second)):
        for number in range(5):
            await database.record(*on_both(number))
        await eventually(lambda: numbers(first) == [0, 1, 2, 3, 4])

        second.fails_with = None
        await eventually(lambda: numbers(second) == [0, 1, 2, 3, 4])


async def test_a_backlog_for_an_unavailable_connection_takes_no_room_from_others(database: OutboxDatabase) -> None:
    first, second = FakeDriver(), Failing(lambda: BroadcastUnavailable("away"))
    waiting = [replace(envelope(number, f"private-{number}"), connection="second") for number in range(1200)]
    await database.record(*waiting)
    async with relaying(database, driver_over(first, second)):
        await database.record(*(envelope(number, f"private-{number}") for number in range(600)))
        await eventually(lambda: len(numbers(first)) == 600)

        second.fails_with = None
        await eventually(lambda: sorted(numbers(second)) == list(range(1200)))


async def test_a_hanging_connection_takes_no_calls_from_others(database: OutboxDatabase) -> None:
    is_asked, answers = asyncio.Event(), asyncio.Event()

    class Hanging(FakeDriver):
        async def send(self, envelopes: Sequence[Envelope], *, idempotency_key: str | None = None) -> None:
            is_asked.set()
            await answers.wait()
            raise BroadcastUnavailable("no answer", answered=True)

    first = FakeDriver()
    async with relaying(database, driver_over(first, Hanging()), concurrency=1):
        await database.record(*on_both(0))
        await asyncio.wait_for(is_asked.wait(), LIMIT_S)
        for number in range(1, 4):
            await database.record(envelope(number, f"private-{number}"))
        await eventually(lambda: numbers(first) == [0, 1, 2, 3])
        answers.set()


async def test_run_once_sends_what_the_available_connections_accept(database: OutboxDatabase) -> None:
    first, second = FakeDriver(), Failing(lambda: BroadcastUnavailable("away"))
    await database.record(*on_both(1, 2, 3))
    relay = database.relay(driver_over(first, second))

    assert await relay.run_once() == 3
    assert numbers(first) == [1, 2, 3]
    await relay.release()


async def test_naming_the_default_connection_is_the_same_as_naming_none(database: OutboxDatabase) -> None:
    first = FakeDriver()
    driver = driver_over(first, FakeDriver())
    await database.record(
        *(replace(envelope(number), connection=None if number % 3 else driver.name) for number in range(30))
    )
    async with relaying(database, driver):
        await eventually(lambda: numbers(first) == list(range(30)))


async def test_the_job_limit_counts_all_connections(database: OutboxDatabase) -> None:
    first, second = FakeDriver(), FakeDriver()
    await database.record(*on_both(*range(20)))

    await database.relay(driver_over(first, second)).run(asyncio.Event(), Until(max_jobs=7))

    assert len(first.sent) + len(second.sent) == 7
