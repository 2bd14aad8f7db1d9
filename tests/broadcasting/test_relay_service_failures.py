"""A relay whose service fails: nothing is lost or reordered, and a poison event fails alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from broadcasting.outbox_database import (
    OutboxDatabase,
    envelope,
    numbers,
    pusher_driver,
    relaying,
    taken,
    without_repeats,
)
from kit.pusher_service import HANG, Call, PusherService
from kit.waiting import eventually, eventually_told
from smartlink.broadcasting import Envelope
from smartlink.broadcasting.outbox import FailedEvents
from smartlink.broadcasting.testing import FakeDriver


def html(_: Call) -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 2\r\n\r\nhi"


ILLNESSES: dict[str, Callable[[Call], Any]] = {
    "hangs": lambda _: HANG,
    "500": lambda _: 500,
    "503": lambda _: 503,
    "429": lambda _: 429,
    "401": lambda _: 401,
    "not HTTP": lambda _: b"\x00\x01garbage\r\n\r\n",
    "another site": html,
}


@pytest.mark.parametrize("illness", ILLNESSES)
async def test_nothing_is_lost_or_reordered_while_the_service_is_failing(
    database: OutboxDatabase, service: PusherService, illness: str
) -> None:
    service.answers = ILLNESSES[illness]
    async with relaying(database, pusher_driver(service, timeout_s=0.1)):
        for number in range(30):
            await database.record(envelope(number, f"private-{number % 2}"))
        await eventually(lambda: len(service.calls) >= 3)
        assert service.taken == []
        service.answers = lambda _: 200

        async def are_sent() -> bool:
            # One that was taken while its answer came too late is sent again.
            return set(await database.column("state")) == {"sent"}

        await eventually_told(are_sent)

    assert without_repeats(numbers(service, "private-0")) == list(range(0, 30, 2))
    assert without_repeats(numbers(service, "private-1")) == list(range(1, 30, 2))
    assert set(await database.column("error")) == {None}


async def test_a_service_that_dies_and_returns_gets_everything_in_order(
    database: OutboxDatabase, service: PusherService
) -> None:
    async with relaying(database, pusher_driver(service)):
        for round_number in range(3):
            for number in range(10):
                await database.record(envelope(round_number * 20 + number))
            await service.stop()
            for number in range(10, 20):
                await database.record(envelope(round_number * 20 + number))
            await service.start()
            await eventually(lambda done=round_number * 20 + 20: taken(service) >= done)  # type: ignore[misc]

    assert without_repeats(numbers(service)) == list(range(60))


def refuses(number: int, status: int) -> Callable[[Call], int]:
    return lambda call: status if any(json.loads(event["data"])["n"] == number for event in call.events) else 200


async def test_only_a_poison_event_fails_and_its_channel_continues(
    database: OutboxDatabase, service: PusherService
) -> None:
    service.answers = refuses(4, 413)
    ids = await database.record(*(envelope(number, f"private-{number % 2}") for number in range(20)))

    async with relaying(database, pusher_driver(service)):
        await eventually(lambda: taken(service) == 19)

    assert numbers(service, "private-0") == [0, 2, *range(6, 20, 2)]
    assert numbers(service, "private-1") == list(range(1, 20, 2))
    states = dict(zip(ids, await database.column("state"), strict=True))
    assert states.pop(ids[4]) == "failed"
    assert set(states.values()) == {"sent"}


async def test_an_event_that_breaks_the_service_delays_its_own_channel_only(
    database: OutboxDatabase, service: PusherService
) -> None:
    service.answers = refuses(0, 500)
    await database.record(*(envelope(number, f"private-{number % 5}") for number in range(20)))

    async with relaying(database, pusher_driver(service), max_failed_attempts=1000):
        await eventually(lambda: taken(service) == 16)
        await database.record(envelope(20, "private-new"))
        await eventually(lambda: numbers(service, "private-new"))
        assert numbers(service, "private-0") == []
        service.answers = lambda _: 200
        await eventually(lambda: taken(service) == 21)

    assert numbers(service, "private-0") == [0, 5, 10, 15]
    assert numbers(service, "private-1") == [1, 6, 11, 16]


def proxy_page(status: int) -> bytes:
    return f"HTTP/1.1 {status} No\r\ncontent-type: text/html\r\ncontent-length: 2\r\n\r\nno".encode()


POISONS: dict[str, Any] = {
    "500": 500,
    "hangs": HANG,
    "cut off": b"",
    "a proxy's 403": proxy_page(403),
    "404 page": proxy_page(404),
}


@pytest.mark.parametrize("illness", POISONS)
async def test_an_event_that_never_gets_a_verdict_fails_and_its_channel_continues(
    database: OutboxDatabase, service: PusherService, illness: str
) -> None:
    service.answers = lambda call: POISONS[illness] if _has(call, 0) else 200
    [poison, *_] = await database.record(*(envelope(number, "private-a") for number in range(3)))

    async with relaying(database, pusher_driver(service, timeout_s=0.3), max_failed_attempts=2):
        await eventually(lambda: numbers(service) == [1, 2])

    assert await database.column("state") == ["failed", "sent", "sent"]
    assert sum(_has(call, 0) for call in service.calls) == 3
    async with database.sessions() as session:
        [event] = await FailedEvents(database.tables).list(session)
    assert event.id == poison
    assert event.error.startswith("tried 3 times: ")


def _has(call: Call, number: int) -> bool:
    return any(json.loads(event["data"]).get("n") == number for event in call.events)


async def test_hanging_events_do_not_delay_other_channels(database: OutboxDatabase, service: PusherService) -> None:
    service.answers = lambda call: HANG if any(_has(call, number) for number in range(5)) else 200
    await database.record(*(envelope(number, f"private-bad-{number}") for number in range(5)))
    async with relaying(database, pusher_driver(service, timeout_s=1.0), concurrency=2):
        await eventually(lambda: sum(len(call.events) == 1 and _has(call, 0) for call in service.calls))
        for number in range(5, 25):
            await database.record(envelope(number, "private-good"))
            await eventually(lambda number=number: numbers(service, "private-good")[-1:] == [number])  # type: ignore[misc]

    assert set((await database.column("state"))[:5]) == {"pending"}


async def test_an_outage_of_any_length_fails_no_events(database: OutboxDatabase, service: PusherService) -> None:
    service.answers = lambda _: 500
    await database.record(*(envelope(number, f"private-{number % 3}") for number in range(12)))
    async with relaying(database, pusher_driver(service), max_failed_attempts=2):
        await eventually(lambda: len(service.calls) >= 12)
        service.answers = lambda _: 200
        await eventually(lambda: taken(service) == 12)

    assert set(await database.column("state")) == {"sent"}


class BrokenDriver(FakeDriver):
    """Raises what no driver may raise, whenever a certain channel is among the envelopes."""

    async def send(self, envelopes: Sequence[Envelope], *, idempotency_key: str | None = None) -> None:
        if any(each.channel == "private-bad" for each in envelopes):
            raise KeyError("bug")
        await super().send(envelopes, idempotency_key=idempotency_key)


async def test_a_driver_that_raises_unexpectedly_does_not_stop_the_relay(database: OutboxDatabase) -> None:
    driver = BrokenDriver()
    await database.record(envelope(1, "private-bad"), envelope(2), envelope(3))

    async with relaying(database, driver, max_failed_attempts=1000):
        await eventually(lambda: sum(sent.channel == "private-a" for sent in driver.sent) == 2)

    assert await database.column("state") == ["pending", "sent", "sent"]
