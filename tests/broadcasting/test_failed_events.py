"""Dead letters: listed, sent again, let go."""

from __future__ import annotations

from broadcasting.outbox_database import OutboxDatabase, envelope
from smartlink.broadcasting import BroadcastRefused
from smartlink.broadcasting.outbox import FailedEvents
from smartlink.broadcasting.testing import FakeDriver


async def fail(database: OutboxDatabase, driver: FakeDriver, *numbers: int) -> list[int]:
    ids = await database.record(*(envelope(number) for number in numbers))
    driver.fails_with = BroadcastRefused("answered 413: too large")
    relay = database.relay(driver)
    await relay.run_once()
    driver.fails_with = None
    return ids


async def test_failed_events_are_listed_newest_first_with_their_reason(database: OutboxDatabase) -> None:
    first, second = await fail(database, FakeDriver(), 1, 2)

    async with database.sessions() as session:
        listed = await FailedEvents(database.tables).list(session)
        older = await FailedEvents(database.tables).list(session, before=second)

    assert [event.id for event in listed] == [second, first]
    assert listed[0].error == "answered 413: too large"
    assert listed[0].attempts == 1
    assert [event.id for event in older] == [first]


async def test_a_failed_event_is_sent_again_on_request(database: OutboxDatabase) -> None:
    driver = FakeDriver()
    [event_id] = await fail(database, driver, 1)
    relay = database.relay(driver)

    async with database.sessions.begin() as session:
        assert await FailedEvents(database.tables).retry(session, event_id)
        assert not await FailedEvents(database.tables).retry(session, event_id)
    await _take_the_lease(database)
    await relay.run_once()

    assert await database.column("state") == ["sent"]
    assert len(driver.sent) == 1


async def test_all_failed_events_are_sent_again_in_order(database: OutboxDatabase) -> None:
    driver = FakeDriver()
    await fail(database, driver, 1, 2, 3)

    async with database.sessions.begin() as session:
        assert await FailedEvents(database.tables).retry_all(session) == 3
    await _take_the_lease(database)
    await database.relay(driver).run_once()

    assert [sent.payload[-2:] for sent in driver.sent] == ["1}", "2}", "3}"]


async def test_a_failed_event_can_be_forgotten_and_no_other(database: OutboxDatabase) -> None:
    [event_id] = await fail(database, FakeDriver(), 1)
    [waiting] = await database.record(envelope(2))

    async with database.sessions.begin() as session:
        failed = FailedEvents(database.tables)
        assert await failed.forget(session, event_id)
        assert not await failed.forget(session, event_id)
        assert not await failed.forget(session, waiting)

    assert await database.column("id") == [waiting]


async def _take_the_lease(database: OutboxDatabase) -> None:
    """As if the relay that failed the events had stopped."""
    async with database.engine.begin() as connection:
        await connection.execute(database.tables.outbox_lease.delete())
