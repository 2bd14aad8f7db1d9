"""Recording: together with the change or not at all, in commit order, readable to catch up."""

from __future__ import annotations

import asyncio
import datetime as dt
import json

import pytest
from sqlalchemy import text, update
from sqlalchemy.exc import DBAPIError

from broadcasting.outbox_database import OutboxDatabase, envelope, relaying
from kit.waiting import LIMIT_S, eventually
from smartlink.broadcasting import Delivery
from smartlink.broadcasting.outbox.record import with_event_id
from smartlink.broadcasting.testing import FakeDriver


async def test_rolled_back_events_are_not_recorded(database: OutboxDatabase) -> None:
    async with database.sessions() as session:
        await database.outbox.record(session, [envelope(1)])
        await session.rollback()

    assert await database.column("id") == []


async def test_events_are_recorded_with_their_transaction_in_order(database: OutboxDatabase) -> None:
    ids = await database.record(*(envelope(number, f"private-{number % 3}") for number in range(25)))

    assert ids == sorted(set(ids))
    assert [json.loads(payload)["n"] for payload in await database.column("payload")] == list(range(25))
    assert set(await database.column("state")) == {"pending"}


async def test_recording_no_envelopes_does_nothing(database: OutboxDatabase) -> None:
    async with database.sessions.begin() as session:
        assert await database.outbox.record(session, []) == []


async def test_live_events_are_never_recorded(database: OutboxDatabase) -> None:
    with pytest.raises(ValueError, match="live"):
        await database.record(envelope(1, delivery=Delivery.LIVE))


async def test_an_id_is_never_used_twice(database: OutboxDatabase) -> None:
    [first] = await database.record(envelope(1))
    async with database.engine.begin() as connection:
        await connection.execute(text("DELETE FROM recorded_events"))

    [second] = await database.record(envelope(2))

    assert second > first


async def test_waking_without_a_relay_is_harmless(database: OutboxDatabase) -> None:
    database.outbox.wake()
    database.outbox.wake()


async def test_a_reader_catches_up_on_durable_events_of_its_channel(database: OutboxDatabase) -> None:
    seen = await database.record(envelope(1))
    await database.record(envelope(2, "private-b"))
    await database.record(envelope(3, delivery=Delivery.STATE))
    missed = await database.record(envelope(4), envelope(5))

    async with database.sessions() as session:
        events, complete = await database.outbox.events_after(session, "private-a", seen[0])
        latest = await database.outbox.latest_id(session, "private-a")

    assert [event.id for event in events] == missed
    assert [json.loads(event.payload) for event in events] == [
        {"eventId": missed[0], "n": 4},
        {"eventId": missed[1], "n": 5},
    ]
    assert events[0].created_at.utcoffset() == dt.timedelta(0)
    assert complete
    assert latest == missed[1]


async def test_a_long_gap_is_read_in_pages(database: OutboxDatabase) -> None:
    ids = await database.record(*(envelope(number) for number in range(5)))

    async with database.sessions() as session:
        first, _ = await database.outbox.events_after(session, "private-a", 0, limit=3)
        rest, _ = await database.outbox.events_after(session, "private-a", first[-1].id, limit=3)

    assert [event.id for event in first + rest] == ids


async def test_a_channel_without_events_starts_at_zero(database: OutboxDatabase) -> None:
    async with database.sessions() as session:
        assert await database.outbox.latest_id(session, "private-a") == 0
        assert await database.outbox.events_after(session, "private-a", 0) == ([], True)


@pytest.mark.parametrize(("payload", "expected"), [("{}", '{"eventId":7}'), ('{"a":"}"}', '{"eventId":7,"a":"}"}')])
def test_the_id_is_added_to_the_payload(payload: str, expected: str) -> None:
    assert with_event_id(payload, 7) == expected


async def test_pruning_deletes_old_sent_events_and_records_the_watermark(database: OutboxDatabase) -> None:
    old = await database.record(envelope(1), envelope(2), envelope(3, "private-quiet"))
    driver = FakeDriver()
    relay = database.relay(driver)
    await relay.run_once()
    waiting = await database.record(envelope(4))
    long_ago = dt.datetime.now(dt.UTC) - dt.timedelta(days=8)
    async with database.engine.begin() as connection:
        await connection.execute(update(database.tables.recorded_events).values(created_at=long_ago))
    young = await database.record(envelope(5))

    assert await relay.prune() == 3
    assert await relay.prune() == 0

    assert await database.column("id") == [*waiting, *young]
    async with database.sessions() as session:
        assert (await database.outbox.events_after(session, "private-a", old[0]))[1] is False
        assert (await database.outbox.events_after(session, "private-a", old[2]))[1] is True
        quiet = await database.outbox.latest_id(session, "private-quiet")
        assert await database.outbox.events_after(session, "private-quiet", quiet) == ([], True)


async def test_a_transaction_waits_for_another_on_the_same_channel(postgresql: OutboxDatabase) -> None:
    outbox = postgresql.outbox
    async with postgresql.sessions() as first:
        [low] = await outbox.record(first, [envelope(1)])
        second = asyncio.create_task(postgresql.record(envelope(2)))
        [elsewhere] = await postgresql.record(envelope(3, "private-b"))
        await _until_somebody_waits(postgresql)
        assert not second.done()
        await first.commit()

    [high] = await second
    assert low < elsewhere
    assert low < high


async def test_a_transaction_with_several_channels_waits_too(postgresql: OutboxDatabase) -> None:
    async with postgresql.sessions() as first:
        await postgresql.outbox.record(first, [envelope(1), envelope(1, "private-c")])
        second = asyncio.create_task(postgresql.record(envelope(2, "private-b"), envelope(2, "private-c")))
        await _until_somebody_waits(postgresql)
        assert not second.done()
        await first.rollback()

    await second


async def _until_somebody_waits(database: OutboxDatabase) -> None:
    waiting = text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
    async with asyncio.timeout(LIMIT_S), database.engine.connect() as connection:
        while not await connection.scalar(waiting):
            await asyncio.sleep(0.003)


async def test_transactions_with_the_same_channels_never_deadlock(postgresql: OutboxDatabase) -> None:
    there = [envelope(1, f"private-{letter}") for letter in "abcdef"]

    await asyncio.gather(*(postgresql.record(*(there if n % 2 else reversed(there))) for n in range(40)))

    assert len(await postgresql.column("id")) == 40 * 6


async def test_a_late_commit_of_a_lower_id_is_not_lost(postgresql: OutboxDatabase) -> None:
    driver = FakeDriver()
    async with relaying(postgresql, driver):
        async with postgresql.sessions() as slow:
            [low] = await postgresql.outbox.record(slow, [envelope(1, "private-slow")])
            [high] = await postgresql.record(envelope(2, "private-fast"))
            await eventually(lambda: driver.sent)
            await slow.commit()
        postgresql.outbox.wake()
        await eventually(lambda: len(driver.sent) == 2)

    assert low < high
    assert [sent.channel for sent in driver.sent] == ["private-fast", "private-slow"]


async def test_database_errors_are_raised_as_sqlalchemy_raises_them(database: OutboxDatabase) -> None:
    async with database.engine.begin() as connection:
        await connection.execute(text("DROP TABLE recorded_events"))

    async with database.sessions() as session:
        with pytest.raises(DBAPIError, match="recorded_events") as refused:
            await database.outbox.record(session, [envelope(1)])

    assert refused.value.statement is not None
    assert not refused.value.connection_invalidated


async def test_a_cancelled_caller_leaves_no_lock_or_busy_connection(
    postgresql: OutboxDatabase,
) -> None:
    async with postgresql.sessions() as first:
        await postgresql.outbox.record(first, [envelope(1)])
        second = asyncio.create_task(postgresql.record(envelope(2)))
        await _until_somebody_waits(postgresql)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        await first.commit()

    await asyncio.wait_for(asyncio.gather(*(postgresql.record(envelope(number)) for number in range(3, 8))), LIMIT_S)

    assert sorted(json.loads(payload)["n"] for payload in await postgresql.column("payload")) == [1, 3, 4, 5, 6, 7]


async def test_a_connection_closed_by_the_database_is_invalidated(postgresql: OutboxDatabase) -> None:
    async with postgresql.sessions() as session:
        own = await session.scalar(text("SELECT pg_backend_pid()"))
        async with postgresql.engine.connect() as other:
            await other.execute(text("SELECT pg_terminate_backend(:own, 5000)"), {"own": own})
        with pytest.raises(DBAPIError) as ended:
            await postgresql.outbox.record(session, [envelope(1)])
        await session.rollback()

        await postgresql.outbox.record(session, [envelope(2)])
        await session.commit()

    assert ended.value.connection_invalidated
    assert [json.loads(payload)["n"] for payload in await postgresql.column("payload")] == [2]
