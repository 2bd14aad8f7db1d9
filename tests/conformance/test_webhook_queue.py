"""The promises of every engine of the port `WebhookQueue`."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from kit.redis import RedisServer, fresh_prefix
from kit.waiting import eventually_told
from smartlink.server.cluster.redis.commands import RedisCommands
from smartlink.server.cluster.redis.naming import Names
from smartlink.server.settings.redis_address import parse_url
from smartlink.server.webhooks import queue as limits
from smartlink.server.webhooks.memory import MemoryQueue
from smartlink.server.webhooks.queue import Address, Batch, Check, Subject, WebhookQueue, WebhookReport
from smartlink.server.webhooks.redis import WEBHOOK_SCRIPTS, RedisQueue
from smartlink.server.webhooks.sqlite import SqliteQueue

ANA, CHANNEL = Subject("1", "presence-a", "7"), Subject("1", "presence-a")
ONE, TWO = "https://one.test/hook", "https://two.test/hook"
A = Address("1", ONE)


def event(text: str, *urls: str, subject: Subject = CHANNEL, once_for_s: float = 0.0) -> WebhookReport:
    return WebhookReport("event", subject, 1_000.5, f'"{text}"', urls or (ONE,), once_for_s=once_for_s)


def arrival(subject: Subject = ANA, check_in_s: float | None = None) -> WebhookReport:
    return WebhookReport("arrival", subject, 1_000.5, '"added"', (ONE,), check_in_s)


def leave(subject: Subject = ANA, check_in_s: float = 0.0) -> WebhookReport:
    return WebhookReport("leave", subject, 1_000.5, "", (), check_in_s)


def texts(batch: Batch | None) -> list[str]:
    return [] if batch is None else [entry.event.strip('"') for entry in batch.entries]


async def claim(queue: WebhookQueue, limit: int, lease_s: float) -> list[Check]:
    """Users that are due, then channels."""
    return [check for of_users in (True, False) for check in await queue.claim(limit, lease_s, of_users=of_users)]


async def drain(queue: WebhookQueue, address: Address = A) -> list[str]:
    """All that waits for an address, taken; what is of users first."""
    return await drain_lane(queue, replace(address, is_of_users=True)) + await drain_lane(queue, address)


async def drain_lane(queue: WebhookQueue, address: Address) -> list[str]:
    found: list[str] = []
    while (batch := await queue.take(address, 100, 30)) is not None:
        found += texts(batch)
        await queue.done(batch)
    return found


class WebhookQueuePromises:
    """Subclassed per engine, which gives the fixture `queue`."""

    # Subjects

    async def test_an_arrival_is_announced_once(self, queue: WebhookQueue) -> None:
        await queue.record([arrival()])
        await queue.record([arrival(), arrival(CHANNEL)])

        assert await drain(queue) == ["added", "added"]

    async def test_a_leave_is_checked_when_due(self, queue: WebhookQueue) -> None:
        await queue.record([arrival(), leave(check_in_s=60)])
        assert await claim(queue, 10, 5) == []

        await queue.record([leave()])
        (check,) = await claim(queue, 10, 5)

        assert (check.subject, check.is_announced) == (ANA, True)
        assert await claim(queue, 10, 5) == []

    async def test_leaves_of_one_call_are_due_in_order(self, queue: WebhookQueue) -> None:
        people = [Subject("1", "presence-a", name) for name in ("9", "1", "5", "ž")]
        await queue.record([leave(subject) for subject in (*people, CHANNEL)])
        found: list[Subject] = []

        async def all_due() -> bool:
            found.extend(check.subject for check in await claim(queue, 10, 5))
            return len(found) == 5

        await eventually_told(all_due)
        assert found == [*people, CHANNEL]

    async def test_a_settled_leave_is_announced_and_so_is_the_next_arrival(self, queue: WebhookQueue) -> None:
        await queue.record([arrival(), leave()])
        (check,) = await claim(queue, 10, 5)

        assert await queue.settle(check, is_announced=False, report=event("removed", subject=ANA))
        await queue.record([arrival()])

        assert await drain(queue) == ["added", "removed", "added"]
        assert await claim(queue, 10, 5) == []

    async def test_a_check_that_finds_the_user_present_announces_nothing(self, queue: WebhookQueue) -> None:
        await queue.record([arrival(), leave()])
        (check,) = await claim(queue, 10, 5)

        assert await queue.settle(check, is_announced=True, report=None)
        await queue.record([arrival()])

        assert await drain(queue) == ["added"]
        assert await claim(queue, 10, 5) == []

    @pytest.mark.parametrize("between", [arrival(), leave()])
    async def test_a_report_between_claim_and_settle_voids_the_check(
        self, queue: WebhookQueue, between: WebhookReport
    ) -> None:
        await queue.record([arrival(), leave()])
        (check,) = await claim(queue, 10, 60)
        await queue.record([between])

        assert not await queue.settle(check, is_announced=False, report=event("removed", subject=ANA))
        (again,) = await claim(queue, 10, 60)
        assert again.version != check.version
        assert await drain(queue) == ["added"]

    async def test_versions_are_never_reused(self, queue: WebhookQueue) -> None:
        await queue.record([arrival(), leave()])
        (stale,) = await claim(queue, 10, 60)
        await queue.record([leave()])
        (check,) = await claim(queue, 10, 60)
        assert await queue.settle(check, is_announced=False, report=None)
        await queue.record([arrival(), leave()])

        assert not await queue.settle(stale, is_announced=False, report=None)

    async def test_a_leave_reported_before_its_arrival_is_checked_after_it(self, queue: WebhookQueue) -> None:
        await queue.record([leave(check_in_s=60)])
        await queue.record([arrival()])
        await queue.record([leave()])
        (check,) = await claim(queue, 10, 60)

        assert check.is_announced

    async def test_a_late_arrival_is_checked(self, queue: WebhookQueue) -> None:
        await queue.record([arrival(check_in_s=0)])
        assert [check.subject for check in await claim(queue, 10, 60)] == [ANA]

    async def test_an_unsettled_claim_is_due_again(self, queue: WebhookQueue) -> None:
        await queue.record([leave()])
        (first,) = await claim(queue, 10, 0.05)

        async def again() -> bool:
            return [check.version for check in await claim(queue, 10, 60)] == [first.version]

        await eventually_told(again)

    async def test_after_a_start_all_announced_subjects_are_checked(self, queue: WebhookQueue) -> None:
        await queue.record([arrival(CHANNEL), arrival()])
        assert await claim(queue, 10, 60) == []

        await queue.recheck(-1)

        assert [check.subject for check in await claim(queue, 10, 60)] == [ANA, CHANNEL]

    async def test_subjects_are_separate_per_channel_and_app(self, queue: WebhookQueue) -> None:
        others = [Subject("2", "presence-a", "7"), Subject("1", "presence-b", "7"), Subject("1", "presence-a", '7","')]
        await queue.record([arrival(), *(arrival(subject) for subject in others)])

        assert await drain(queue) == ["added"] * 3
        assert await drain(queue, Address("2", ONE)) == ["added"]

    async def test_an_event_can_be_limited_to_once_per_period(self, queue: WebhookQueue) -> None:
        await queue.record([event("miss", once_for_s=60), event("miss", once_for_s=60)])
        await queue.record([event("other", subject=Subject("1", "cache-b"), once_for_s=0.05)])

        assert await drain(queue) == ["miss", "other"]

        async def told_again() -> bool:
            await queue.record([event("other", subject=Subject("1", "cache-b"), once_for_s=0.05)])
            return await drain(queue) == ["other"]

        await eventually_told(told_again)

    # Waiting events

    async def test_events_are_taken_in_order_and_only_from_their_address(self, queue: WebhookQueue) -> None:
        await queue.record([event(str(n), *((ONE, TWO) if n % 2 else (ONE,))) for n in range(10)])
        await queue.record([event(str(n)) for n in range(10, 20)])

        assert sorted(await queue.ready(10), key=lambda address: address.url) == [A, Address("1", TWO)]
        assert await drain(queue) == [str(n) for n in range(20)]
        assert await drain(queue, Address("1", TWO)) == ["1", "3", "5", "7", "9"]
        assert await queue.ready(10) == []

    async def test_an_entry_keeps_its_time_and_its_text(self, queue: WebhookQueue) -> None:
        text = '{"name":"client_event","data":"\\u0000 ž 😀 \\" / {0.__class__}"}'
        await queue.record([WebhookReport("event", CHANNEL, 1_700_000_000.25, text, (ONE,))])
        batch = await queue.take(A, 10, 30)

        assert batch is not None
        (entry,) = batch.entries
        assert (entry.at, entry.event) == (1_700_000_000.25, text)

    async def test_one_address_is_taken_by_one_caller(self, queue: WebhookQueue) -> None:
        await queue.record([event("1"), event("2", TWO)])
        batch = await queue.take(A, 1, 30)

        assert texts(batch) == ["1"]
        assert await queue.take(A, 1, 30) is None
        assert await queue.ready(10) == [Address("1", TWO)]

    async def test_events_queued_while_an_address_is_taken_come_next(self, queue: WebhookQueue) -> None:
        await queue.record([event("1")])
        batch = await queue.take(A, 10, 30)
        assert batch is not None
        await queue.record([event("2")])
        assert await queue.ready(10) == []
        await queue.done(batch)

        assert await queue.ready(10) == [A]
        assert await drain(queue) == ["2"]

    async def test_a_dead_callers_batch_is_taken_over_and_its_late_calls_have_no_effect(
        self, queue: WebhookQueue
    ) -> None:
        await queue.record([event("1"), event("2")])
        dead = await queue.take(A, 1, 0.05)
        assert dead is not None
        taken: list[Batch] = []

        async def take_over() -> bool:
            batch = await queue.take(A, 1, 30)
            taken.extend([] if batch is None else [batch])
            return bool(taken)

        await eventually_told(take_over)
        await queue.done(dead)
        assert await queue.defer(dead, 0, 0, "late") == 0
        assert await queue.give_up(dead, "late") == 0

        assert texts(taken[0]) == ["1"]
        await queue.done(taken[0])
        assert await drain(queue) == ["2"]
        assert await queue.failed() == []

    async def test_a_deferred_batch_waits_and_counts_its_attempts(self, queue: WebhookQueue) -> None:
        await queue.record([event("1")])
        batch = await queue.take(A, 10, 30)
        assert batch is not None
        assert batch.attempts == 0
        assert await queue.defer(batch, 60, 300, "answered 500") == 0

        assert await queue.ready(10) == []
        assert await queue.take(A, 10, 30) is None

    async def test_a_deferred_batch_is_first_again(self, queue: WebhookQueue) -> None:
        await queue.record([event("1")])
        batch = await queue.take(A, 10, 30)
        assert batch is not None
        await queue.record([event("2")])
        await queue.defer(batch, 0, 300, "answered 500")
        again = await queue.take(A, 10, 30)

        assert again is not None
        assert (texts(again), again.attempts) == (["1", "2"], 1)
        await queue.done(again)
        await queue.record([event("3")])
        fresh = await queue.take(A, 10, 30)
        assert fresh is not None
        assert fresh.attempts == 0

    # Failed events

    async def test_failed_batches_are_kept_and_replayed_after_waiting_events(self, queue: WebhookQueue) -> None:
        await queue.record([event("1"), event("2"), event("3")])
        batch = await queue.take(A, 2, 30)
        assert batch is not None
        begun = time.time()
        assert await queue.defer(batch, 60, 0, "answered 500") == 3
        ended = time.time()

        older, newer = reversed(await queue.failed())
        assert [entry.event for entry in (*older.entries, *newer.entries)] == ['"1"', '"2"', '"3"']
        assert (older.address, older.reason, older.entries[0].at) == (A, "answered 500", 1_000.5)
        assert begun <= older.failed_at <= ended
        assert await queue.ready(10) == []
        await queue.record([event("4", TWO), event("5")])
        assert await queue.retry(older.id) == 1
        assert await queue.retry(older.id) == 0

        assert await drain(queue) == ["5", "1", "2"]
        assert await queue.retry(None) == 1
        assert await drain(queue) == ["3"]
        assert await queue.failed() == []

    async def test_recent_events_of_a_failing_address_get_their_full_retry_time(self, queue: WebhookQueue) -> None:
        await queue.record([event("1")])
        batch = await queue.take(A, 10, 30)
        assert batch is not None
        assert await queue.defer(batch, 0, 300, "x") == 0
        again = await queue.take(A, 10, 30)
        assert again is not None

        assert await queue.defer(again, 0, 0.5, "x") == 0
        assert await queue.failed() == []

    async def test_a_batch_can_be_failed_at_once(self, queue: WebhookQueue) -> None:
        await queue.record([event("1"), event("2")])
        batch = await queue.take(A, 1, 30)
        assert batch is not None
        assert await queue.give_up(batch, "gone") == 1

        assert await drain(queue) == ["2"]
        (failed,) = await queue.failed()
        assert failed.reason == "gone"

    async def test_failed_batches_can_be_deleted(self, queue: WebhookQueue) -> None:
        for text in ("1", "2", "3"):
            await queue.record([event(text)])
            batch = await queue.take(A, 10, 30)
            assert batch is not None
            await queue.give_up(batch, "gone")
        third, second, _ = await queue.failed()

        assert await queue.forget(second.id) == 1
        assert await queue.forget(second.id) == 0
        assert await queue.forget(999_999_999) == 0
        assert (await queue.failed(1))[0].id == third.id
        assert await queue.forget(None) == 2
        assert await queue.failed() == []

    async def test_an_address_has_a_limit_that_does_not_affect_others(
        self, queue: WebhookQueue, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for engine in ("memory", "sqlite", "redis"):
            monkeypatch.setattr(f"smartlink.server.webhooks.{engine}.MAX_WAITING", 3)
            monkeypatch.setattr(f"smartlink.server.webhooks.{engine}.MAX_FAILED", 2)
        assert await queue.record([event(str(n)) for n in range(5)]) == 2
        assert await queue.record([event("x", ONE, TWO)]) == 1
        for _ in range(3):
            batch = await queue.take(A, 1, 30)
            assert batch is not None
            await queue.give_up(batch, "gone")

        assert [failed.entries[0].event for failed in await queue.failed()] == ['"2"', '"1"']
        assert await drain(queue, Address("1", TWO)) == ["x"]

    async def test_user_events_have_their_own_lane(self, queue: WebhookQueue, monkeypatch: pytest.MonkeyPatch) -> None:
        for engine in ("memory", "sqlite", "redis"):
            monkeypatch.setattr(f"smartlink.server.webhooks.{engine}.MAX_WAITING", 3)
        strangers = [Subject("1", f"chat-{number}") for number in range(5)]
        assert await queue.record([leave(subject) for subject in strangers]) == 0
        assert await queue.record([event(str(number)) for number in range(5)]) == 2
        assert await queue.record([arrival(), leave()]) == 0

        (check,) = await queue.claim(10, 5, of_users=True)
        assert check.subject == ANA
        assert [check.subject for check in await queue.claim(10, 5, of_users=False)] == strangers
        held = await queue.take(A, 10, 30)
        assert texts(held) == ["0", "1", "2"]
        batch = await queue.take(replace(A, is_of_users=True), 10, 30)
        assert batch is not None
        assert texts(batch) == ["added"]
        assert await queue.give_up(batch, "gone") == 1
        assert [failed.address for failed in await queue.failed()] == [replace(A, is_of_users=True)]
        assert await queue.retry(None) == 1
        assert await queue.ready(10) == [replace(A, is_of_users=True)]


class TestMemoryQueue(WebhookQueuePromises):
    @pytest.fixture
    def queue(self) -> WebhookQueue:
        return MemoryQueue()


class TestSqliteQueue(WebhookQueuePromises):
    @pytest.fixture
    async def queue(self, tmp_path: Path) -> AsyncIterator[WebhookQueue]:
        queue = SqliteQueue(tmp_path / "new" / "webhooks.db")
        await queue.start()
        yield queue
        await queue.stop()

    async def test_several_queues_can_share_one_file_and_a_later_one_reopens_it(self, tmp_path: Path) -> None:
        one, two, three = (SqliteQueue(tmp_path / "w.db") for _ in range(3))
        await one.start()
        await two.start()
        await one.record([event("1"), arrival()])
        await two.record([event("2"), arrival()])
        batch = await one.take(A, 1, 30)

        assert texts(batch) == ["1"]
        assert await two.take(A, 1, 30) is None
        assert batch is not None
        await one.done(batch)
        await one.stop()
        await two.stop()
        await three.start()
        assert await drain(three) == ["added", "2"]
        await three.stop()

    async def test_a_clock_set_back_delays_nothing(self, tmp_path: Path) -> None:
        now = [10_000.0]
        queue = SqliteQueue(tmp_path / "w.db", now=lambda: now[0])
        await queue.start()
        await queue.record([event("1"), leave()])
        batch = await queue.take(A, 1, 30)
        now[0] = 1_000.0

        assert len(await claim(queue, 10, 5)) == 1
        assert texts(await queue.take(A, 1, 30)) == texts(batch) == ["1"]
        await queue.stop()

    async def test_an_unusable_file_raises(self, tmp_path: Path) -> None:
        (tmp_path / "w.db").write_text("not a database, but long enough to look at: " * 100)
        with pytest.raises(limits.QueueUnavailable, match=r"w\.db is unavailable"):
            await SqliteQueue(tmp_path / "w.db").start()


class TestRedisQueue(WebhookQueuePromises):
    @pytest.fixture
    async def queue(self, shared_redis: RedisServer) -> AsyncIterator[WebhookQueue]:
        async with redis_queue(shared_redis.url) as queue:
            yield queue

    async def test_an_unreachable_redis_raises(self) -> None:
        async with redis_queue("redis://127.0.0.1:1/0") as queue:
            with pytest.raises(limits.QueueUnavailable, match="Redis is unreachable"):
                await queue.record([event("1")])

    async def test_rejected_redis_credentials_raise_at_startup(self, shared_redis: RedisServer) -> None:
        with pytest.raises(limits.QueueUnavailable, match="REDIS_DB"):
            async with redis_queue(f"redis://127.0.0.1:{shared_redis.port}/999"):
                pass


@asynccontextmanager
async def redis_queue(url: str) -> AsyncIterator[RedisQueue]:
    queue = RedisQueue(RedisCommands(parse_url(url), WEBHOOK_SCRIPTS), Names(fresh_prefix()))
    await queue.start()
    try:
        yield queue
    finally:
        await queue.stop()
