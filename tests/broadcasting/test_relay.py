"""The relay sends at least once, and in order per channel."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import json
import random
import sqlite3
import threading
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from broadcasting.outbox_database import OutboxDatabase, envelope, open_database, pusher_driver, relaying
from kit.pusher_service import HANG, Call, PusherService, pusher_service
from kit.waiting import LIMIT_S, eventually, eventually_told
from smartlink.broadcasting import Broadcaster, BroadcastUnavailable, Channel, Delivery, Envelope
from smartlink.broadcasting.outbox import FailedEvents, Wakeup
from smartlink.broadcasting.outbox.service import PROBE_CHANNEL
from smartlink.broadcasting.testing import FakeDriver, fake_broadcasts


@pytest.fixture
async def service() -> AsyncIterator[PusherService]:
    async with pusher_service() as service:
        yield service


def numbers(service: PusherService, channel: str = "private-a") -> list[int]:
    return [payload["n"] for payload in service.payloads(channel)]


def taken(service: PusherService) -> int:
    """How many events the service has taken, repeats apart, and those by which the relay asks whether it takes any."""
    return len({(event["channel"], event["data"]) for event in service.taken if event["channel"] != PROBE_CHANNEL})


async def test_durable_events_carry_their_id_and_state_events_do_not(
    database: OutboxDatabase, service: PusherService
) -> None:
    [first, _, third] = await database.record(
        envelope(1), envelope(2, delivery=Delivery.STATE), Envelope("chat", "Empty", "{}", "1.2")
    )

    async with relaying(database, pusher_driver(service)):
        await eventually(lambda: taken(service) == 3)

    assert service.payloads() == [{"eventId": first, "n": 1}, {"n": 2}, {"eventId": third}]
    assert [event.get("socket_id") for event in service.taken] == [None, None, "1.2"]
    assert await database.column("state") == ["sent"] * 3


async def test_a_running_relay_sends_to_a_fake_within_its_block(
    database: OutboxDatabase, service: PusherService
) -> None:
    broadcaster = Broadcaster(pusher_driver(service))
    async with relaying(database, broadcaster.driver):
        with fake_broadcasts(broadcaster) as broadcasts:
            await database.record(*broadcaster.pack(broadcaster.on(Channel("news")).as_("faked").event))
            await eventually(lambda: broadcasts.sent)
        await database.record(*broadcaster.pack(broadcaster.on(Channel("news")).as_("sent").event))
        await eventually(lambda: taken(service) == 1)

    assert [event["name"] for event in service.taken] == ["sent"]
    broadcasts.assert_broadcast("faked", times=1)


async def test_a_wakeup_makes_the_relay_send_at_once(database: OutboxDatabase, service: PusherService) -> None:
    async with relaying(database, pusher_driver(service), sweep_s=3600):
        for number in range(3):
            await database.record(envelope(number))
            await eventually(lambda number=number: taken(service) == number + 1)  # type: ignore[misc]


async def test_events_recorded_by_another_process_are_found_without_a_wakeup(
    database: OutboxDatabase, service: PusherService
) -> None:
    async with relaying(database, pusher_driver(service), wakeup=Wakeup()):
        await database.record(envelope(1))
        await eventually(lambda: service.taken)


async def test_ten_events_are_sent_in_one_call(database: OutboxDatabase, service: PusherService) -> None:
    await database.record(*(envelope(number) for number in range(25)))

    async with relaying(database, pusher_driver(service)):
        await eventually(lambda: taken(service) == 25)

    assert [len(call.events) for call in service.calls] == [10, 10, 5]
    assert numbers(service) == list(range(25))


async def test_a_backlog_of_many_rounds_is_sent_in_order(database: OutboxDatabase) -> None:
    driver = FakeDriver()
    await database.record(*(envelope(number, f"private-{number % 7}") for number in range(1500)))

    relay = database.relay(driver)
    counts = [await relay.run_once() for _ in range(9)]

    assert sum(counts) == 1500
    assert counts[-1] == 0
    for channel in range(7):
        sent = [json.loads(sent.payload)["n"] for sent in driver.sent if sent.channel == f"private-{channel}"]
        assert sent == list(range(channel, 1500, 7))


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

    assert _without_repeats(numbers(service, "private-0")) == list(range(0, 30, 2))
    assert _without_repeats(numbers(service, "private-1")) == list(range(1, 30, 2))
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

    assert _without_repeats(numbers(service)) == list(range(60))


def _without_repeats(values: Sequence[int]) -> list[int]:
    return list(dict.fromkeys(values))


async def test_an_event_has_one_id_however_often_it_is_sent(database: OutboxDatabase) -> None:
    driver = Forgetful(losing=3)
    await database.record(*(envelope(number) for number in range(7)))
    async with relaying(database, driver):
        await eventually(lambda: driver.calls)
        await database.record(envelope(7, delivery=Delivery.STATE))
        await eventually(lambda: any(each.payload == '{"n":7}' for each in driver.sent))

    ids = defaultdict(set)
    for sent in driver.tried:
        ids[sent.payload].add(sent.event_id)
    assert [len(each) for each in ids.values()] == [1] * 8
    assert len(set.union(*ids.values())) == 8
    assert None not in set.union(*ids.values())


class Forgetful(FakeDriver):
    """Takes the first few calls, and says that they failed."""

    def __init__(self, losing: int) -> None:
        super().__init__()
        self.losing = losing
        self.calls = 0
        self.tried: list[Envelope] = []

    async def send(self, envelopes: Sequence[Envelope], *, idempotency_key: str | None = None) -> None:
        self.calls += 1
        self.tried += [each for each in envelopes if each.channel != PROBE_CHANNEL]
        if self.calls <= self.losing:
            raise BroadcastUnavailable("the answer was lost", answered=True)
        await super().send(envelopes, idempotency_key=idempotency_key)


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
        assert _without_repeats(numbers(service, f"private-{channel}")) == list(range(channel, 14, 3))


async def test_ids_differ_between_databases_with_the_same_numbers(tmp_path: Any) -> None:
    ids, keys = [], []
    for name in ("one", "two"):
        async with open_database(f"sqlite+aiosqlite:///{tmp_path / name}.db") as database:
            driver = FakeDriver()
            assert await database.record(envelope(1)) == [1]
            await database.relay(driver).run_once()
            ids += [sent.event_id for sent in driver.sent]
            keys += driver.idempotency_keys

    assert None not in keys
    assert len(set(keys)) == len(set(ids)) == 2


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


async def test_the_relay_survives_database_failures(database: OutboxDatabase, caplog: pytest.LogCaptureFixture) -> None:
    driver = FakeDriver()
    async with relaying(database, driver):
        await database.record(envelope(1))
        await eventually(lambda: driver.sent)
        await _rename(database, "recorded_events", "gone")
        database.outbox.wake()
        await eventually(lambda: "the database failed" in caplog.text)
        await _rename(database, "gone", "recorded_events")
        await database.record(envelope(2))
        await eventually(lambda: len(driver.sent) == 2)


async def _rename(database: OutboxDatabase, old: str, new: str) -> None:
    async with database.engine.begin() as connection:
        await connection.execute(text(f"ALTER TABLE {old} RENAME TO {new}"))


async def test_stopping_takes_bounded_time_even_if_the_database_is_locked(postgresql: OutboxDatabase) -> None:
    driver = FakeDriver()
    relay = postgresql.relay(driver)
    stop = asyncio.Event()
    running = asyncio.create_task(relay.run(stop))
    await postgresql.record(envelope(1))
    await eventually(lambda: driver.sent)

    async with postgresql.engine.begin() as locker:
        await locker.execute(text("LOCK TABLE outbox_lease, recorded_events, outbox_workers IN ACCESS EXCLUSIVE MODE"))
        postgresql.outbox.wake()
        await _until_somebody_waits_for_a_table(locker)
        stop.set()
        await asyncio.wait_for(running, LIMIT_S)


def test_a_program_exits_while_another_process_locks_its_sqlite_database(tmp_path: Path) -> None:
    held = contextlib.closing(sqlite3.connect(tmp_path / "outbox.db", isolation_level=None, check_same_thread=False))

    async def program(locker: sqlite3.Connection) -> None:
        async with open_database(f"sqlite+aiosqlite:///{tmp_path / 'outbox.db'}") as database:
            driver = FakeDriver()
            stop = asyncio.Event()
            running = asyncio.create_task(database.relay(driver).run(stop))
            await database.record(envelope(1))
            await eventually(lambda: driver.sent)
            # The loop goes on meanwhile: the relay may have to write first.
            await asyncio.to_thread(locker.execute, "BEGIN IMMEDIATE")
            stop.set()
            await asyncio.wait_for(running, LIMIT_S)

    with held as locker:
        # In a thread: what it is about is whether the loop can be closed.
        thread = threading.Thread(target=lambda: asyncio.run(program(locker)), daemon=True)
        thread.start()
        thread.join(LIMIT_S)

        assert not thread.is_alive()


async def test_a_cancelled_write_leaves_no_lock(tmp_path: Path) -> None:
    async with open_database(f"sqlite+aiosqlite:///{tmp_path / 'outbox.db'}") as database:
        for moment in range(60):
            stop = asyncio.Event()
            running = asyncio.create_task(database.relay(FakeDriver()).run(stop))
            await asyncio.sleep(moment * 0.0003)
            stop.set()
            await running

            with contextlib.closing(sqlite3.connect(tmp_path / "outbox.db", timeout=0.2)) as other:
                other.execute("UPDATE outbox_lease SET expires_at = 0")
                other.commit()


async def _until_somebody_waits_for_a_table(connection: AsyncConnection) -> None:
    waiting = text("SELECT count(*) FROM pg_locks WHERE locktype = 'relation' AND NOT granted")
    async with asyncio.timeout(LIMIT_S):
        while not await connection.scalar(waiting):
            await asyncio.sleep(0.003)


async def test_overlapping_transactions_lose_nothing_and_keep_each_channels_order(
    database: OutboxDatabase, service: PusherService
) -> None:
    chance = random.Random(7)
    committed: dict[str, list[int]] = defaultdict(list)

    async def writer(number: int) -> None:
        for step in range(12):
            channels = chance.sample(["private-a", "private-b", "private-c", "private-d"], chance.randint(1, 3))
            async with database.sessions() as session:
                ids = await database.outbox.record(
                    session, [envelope(number * 100 + step, channel) for channel in channels]
                )
                await asyncio.sleep(chance.random() / 200)
                if chance.random() < 0.2:
                    await session.rollback()
                    continue
                await session.commit()
            database.outbox.wake()
            for channel, event_id in zip(channels, ids, strict=True):
                committed[channel].append(event_id)

    async with relaying(database, pusher_driver(service)):
        await asyncio.gather(*(writer(number) for number in range(8)))
        await eventually(lambda: taken(service) >= sum(len(ids) for ids in committed.values()))

    for channel, ids in committed.items():
        assert [payload["eventId"] for payload in service.payloads(channel)] == sorted(ids)
