"""Broadcasting from blocking code: threads, forks, requests, and running event loops."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from kit.waiting import LIMIT_S
from smartlink.broadcasting import (
    BroadcastConfigError,
    Broadcaster,
    BroadcastSettings,
    BroadcastUnavailable,
    Channel,
    Envelope,
    SyncBroadcaster,
)
from smartlink.broadcasting.testing import FakeBroadcaster, FakeDriver


@pytest.fixture
def fake() -> FakeBroadcaster:
    return FakeBroadcaster()


@pytest.fixture
def broadcaster(fake: FakeBroadcaster) -> Iterator[SyncBroadcaster]:
    with SyncBroadcaster(lambda: fake) as broadcaster:
        yield broadcaster


def test_an_event_is_sent_when_send_returns(fake: FakeBroadcaster, broadcaster: SyncBroadcaster) -> None:
    broadcaster.on(Channel("news")).as_("news.out").with_({"n": 1}).send()

    assert fake.sent == (Envelope("news", "news.out", '{"n":1}'),)


def own_threads() -> set[threading.Thread]:
    """Those of every broadcaster in this process."""
    return {thread for thread in threading.enumerate() if thread.name == "smartlink-broadcasting"}


def test_many_threads_may_send_at_once(fake: FakeBroadcaster, broadcaster: SyncBroadcaster) -> None:
    before = own_threads()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: broadcaster.private(f"room.{n}").send(), range(200)))

    assert len(fake.sent) == 200
    assert len(own_threads() - before) == 1


def test_failures_are_raised_to_the_caller(fake: FakeBroadcaster, broadcaster: SyncBroadcaster) -> None:
    fake.fake_driver.fails_with = BroadcastUnavailable("away")

    with pytest.raises(BroadcastUnavailable, match="away"):
        broadcaster.presence("room").send()
    broadcaster.presence("room").rescue().send()


async def test_inside_a_running_loop_the_error_says_what_to_use(broadcaster: SyncBroadcaster) -> None:
    with pytest.raises(RuntimeError, match=r"use `await send_now\(\.\.\.\)` or `await Broadcaster\.send"):
        broadcaster.on(Channel("news")).send()


def test_closing_ends_the_thread_and_a_later_use_starts_a_new_one(fake: FakeBroadcaster) -> None:
    before = own_threads()
    broadcaster = SyncBroadcaster(lambda: Broadcaster(fake.fake_driver))
    broadcaster.on(Channel("news")).send()
    assert own_threads() - before
    broadcaster.close()
    broadcaster.close()

    assert not own_threads() - before
    broadcaster.on(Channel("news")).send()
    broadcaster.close()
    assert len(fake.sent) == 2


def test_closing_waits_for_sends_of_other_threads() -> None:
    class Slow(FakeDriver):
        async def send(self, envelopes: Sequence[Envelope], *, idempotency_key: str | None = None) -> None:
            is_under_way.set()
            await asyncio.sleep(0.2)
            await super().send(envelopes)

    is_under_way, slow = threading.Event(), Slow()
    broadcaster = SyncBroadcaster(lambda: Broadcaster(slow))
    with ThreadPoolExecutor() as threads:
        sending = [threads.submit(broadcaster.on(Channel("news")).send) for _ in range(3)]
        assert is_under_way.wait(LIMIT_S)
        broadcaster.close()
        for each in sending:
            each.result(LIMIT_S)

    assert len(slow.sent) == 3


def test_closing_cancels_sends_that_do_not_finish() -> None:
    class Endless(FakeDriver):
        async def send(self, envelopes: Sequence[Envelope], *, idempotency_key: str | None = None) -> None:
            is_under_way.set()
            await asyncio.Event().wait()

    is_under_way = threading.Event()
    broadcaster = SyncBroadcaster(lambda: Broadcaster(Endless()), wait_s=0.3)
    with ThreadPoolExecutor() as threads:
        sending = threads.submit(broadcaster.on(Channel("news")).send)
        assert is_under_way.wait(LIMIT_S)
        broadcaster.close()
        with pytest.raises(BroadcastUnavailable):
            sending.result(LIMIT_S)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_sends_through_a_thread_of_its_own(
    fake: FakeBroadcaster, broadcaster: SyncBroadcaster
) -> None:
    broadcaster.on(Channel("news")).send()
    child = os.fork()
    if child == 0:
        try:
            broadcaster.on(Channel("news")).send()
            os._exit(0 if len(fake.sent) == 2 else 1)
        finally:
            os._exit(2)

    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0


def test_settings_are_checked_on_creation() -> None:
    with pytest.raises(BroadcastConfigError, match="PUSHER_APP_ID"):
        SyncBroadcaster.from_settings(BroadcastSettings(_env_file=None, driver="pusher"))


def test_a_driver_that_never_returns_times_out(fake: FakeBroadcaster) -> None:
    class Endless:
        name = "endless"

        async def send(self, envelopes: Sequence[Envelope], *, idempotency_key: str | None = None) -> None:
            await asyncio.Event().wait()

        async def aclose(self) -> None:
            return

    with SyncBroadcaster(lambda: Broadcaster(Endless()), wait_s=0.1) as broadcaster:
        with pytest.raises(BroadcastUnavailable, match=r"not done within 0\.1 s"):
            broadcaster.on(Channel("news")).send()
