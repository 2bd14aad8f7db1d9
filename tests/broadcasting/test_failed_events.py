"""Failed events (dead letters): listed, retried, deleted."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, field

from broadcasting.outbox_database import OutboxDatabase, envelope
from kit.client import connected
from kit.realtime import realtime_server
from kit.waiting import LIMIT_S
from smartlink.broadcasting import Broadcaster, BroadcastRefused, BroadcastSettings, Delivery, Driver, Envelope
from smartlink.broadcasting.outbox import FailedEvents
from smartlink.broadcasting.testing import FakeDriver


@dataclass
class Page:
    """A reader as clients are: whatever is not above what it has seen is dropped as seen."""

    after: int = 0
    applied: list[int] = field(default_factory=list)
    is_connected: bool = True

    def hear(self, event_id: int, number: int) -> None:
        if event_id > self.after:
            self.after = event_id
            self.applied.append(number)

    def hear_all(self, envelopes: Sequence[Envelope]) -> None:
        for each in envelopes:
            payload = json.loads(each.payload)
            self.hear(payload["eventId"], payload["n"])

    async def close_gap(self, database: OutboxDatabase, channel: str = "private-a") -> None:
        async with database.sessions() as session:
            found, self.is_connected = await database.outbox.events_after(session, channel, self.after)
        for event in found:
            self.hear(event.id, json.loads(event.payload)["n"])


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


async def test_a_failed_event_can_be_retried(database: OutboxDatabase) -> None:
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


async def test_all_failed_events_are_retried_in_order(database: OutboxDatabase) -> None:
    driver = FakeDriver()
    await fail(database, driver, 1, 2, 3)

    async with database.sessions.begin() as session:
        assert await FailedEvents(database.tables).retry_all(session) == 3
    await _relay_once(database, driver)

    assert [sent.payload[-2:] for sent in driver.sent] == ["1}", "2}", "3}"]


async def test_only_failed_events_can_be_deleted(database: OutboxDatabase) -> None:
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


async def retry_all(database: OutboxDatabase, **bounds: int) -> int:
    async with database.sessions.begin() as session:
        return await FailedEvents(database.tables).retry_all(session, **bounds)


async def test_a_page_that_has_seen_later_ids_receives_a_retried_event(database: OutboxDatabase) -> None:
    driver, page = FakeDriver(), Page()
    [lost] = await fail(database, driver, 1)
    await database.record(envelope(2))
    await _relay_once(database, driver)
    page.hear_all(driver.sent)
    assert page.after > lost

    await retry_all(database)
    await _relay_once(database, driver)
    page.hear_all(driver.sent)

    assert page.applied == [2, 1]


async def test_catching_up_returns_a_retried_event_once_after_the_others(database: OutboxDatabase) -> None:
    await fail(database, FakeDriver(), 1)
    await database.record(envelope(2))
    early, late = Page(), Page()

    await early.close_gap(database)
    await retry_all(database)
    await early.close_gap(database)
    await early.close_gap(database)
    await late.close_gap(database)

    assert early.applied == [2, 1]
    assert late.applied == [2, 1]
    assert early.is_connected
    assert late.is_connected


async def test_a_gap_with_a_failed_event_is_incomplete_until_the_state_is_reloaded(
    database: OutboxDatabase,
) -> None:
    page, elsewhere = Page(), Page()
    [first] = await fail(database, FakeDriver(), 1)

    await page.close_gap(database)
    await elsewhere.close_gap(database, "private-b")
    assert (page.applied, page.is_connected) == ([], False)
    assert elsewhere.is_connected

    async with database.sessions() as session:
        page.after = await database.outbox.latest_id(session, "private-a")
    await page.close_gap(database)
    assert page.after == first
    assert page.is_connected


async def test_a_retried_event_keeps_everything_but_its_id_and_attempts(database: OutboxDatabase) -> None:
    driver = FakeDriver()
    driver.fails_with = BroadcastRefused("answered 400: no")
    kept = Envelope("private-b", "E", '{"a":"é"}', "1.2", Delivery.STATE, "high", None, "pusher", "7", True)
    [before] = await database.record(kept)
    await database.relay(driver).run_once()

    await retry_all(database)

    [after] = await database.column("id")
    assert after > before
    for name in (
        "channel",
        "name",
        "payload",
        "socket_id",
        "delivery",
        "queue",
        "connection",
        "except_user",
        "receipts",
    ):
        assert await database.column(name) == [getattr(kept, name)]
    assert await database.column("state") == ["pending"]
    assert await database.column("attempts") == [0]
    assert await database.column("error") == [None]


async def test_a_retry_that_is_rolled_back_leaves_the_event_failed(database: OutboxDatabase) -> None:
    [event_id] = await fail(database, FakeDriver(), 1)

    async with database.sessions() as session:
        assert await FailedEvents(database.tables).retry(session, event_id)
        await session.rollback()

    assert await database.column("id") == [event_id]
    assert await database.column("state") == ["failed"]


async def test_two_concurrent_retries_send_it_once(database: OutboxDatabase) -> None:
    await fail(database, FakeDriver(), 1, 2, 3)

    counts = await asyncio.gather(retry_all(database), retry_all(database))

    assert sorted(counts) == [0, 3]
    assert await database.column("state") == ["pending"] * 3


async def test_many_events_are_retried_in_batches_oldest_first(database: OutboxDatabase) -> None:
    _, second, third = await fail(database, FakeDriver(), 1, 2, 3)

    assert await retry_all(database, limit=2) == 2
    assert min(await database.column("id")) == third
    assert await retry_all(database, limit=2, through=second) == 0
    assert await retry_all(database, limit=2, through=third) == 1
    assert min(await database.column("id")) > third


async def test_a_retry_waits_for_transactions_recording_on_its_channel(postgresql: OutboxDatabase) -> None:
    database = postgresql
    [lost] = await fail(database, FakeDriver(), 1)
    async with database.sessions() as session:
        [other] = await database.outbox.record(session, [envelope(2)])
        retrying = asyncio.create_task(retry_all(database))
        done, _ = await asyncio.wait({retrying}, timeout=0.2)
        await session.commit()

    assert not done
    assert await asyncio.wait_for(retrying, LIMIT_S) == 1
    retried = max(await database.column("id"))
    assert lost < other < retried


async def test_the_server_drops_a_repeat_but_not_a_retry(database: OutboxDatabase) -> None:
    async with realtime_server() as server, connected(server.port) as client:
        await client.subscribe("private-a")
        driver = Broadcaster.from_settings(BroadcastSettings(_env_file=None, reverb_port=server.port)).driver
        [first] = await database.record(envelope(1))
        await _relay_once(database, driver)
        # As when the answers were lost: sent, and yet taken for failed.
        await _set_state(database, "pending")
        await _relay_once(database, driver)
        await _set_state(database, "failed")
        await retry_all(database)
        await _relay_once(database, driver)
        await driver.aclose()

        heard = [json.loads((await client.expect("App\\Events\\E"))["data"])["eventId"] for _ in range(2)]

    assert heard == [first, *await database.column("id")]


async def _relay_once(database: OutboxDatabase, driver: Driver) -> None:
    await _take_the_lease(database)
    await database.relay(driver).run_once()


async def _set_state(database: OutboxDatabase, state: str) -> None:
    async with database.engine.begin() as connection:
        await connection.execute(database.tables.recorded_events.update().values(state=state))
