"""Webhooks when a receiver or the queue fails: everything once, in order, and kept if nobody takes it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from kit.receiver import DROP, HANG, receiver
from kit.waiting import eventually
from server.webhook_sink import World, app_with, client_event, sink
from smartlink.server.apps.base import WebhookTarget
from smartlink.server.apps.static import StaticApps
from smartlink.server.runtime.metrics import Metrics
from smartlink.server.webhooks.base import OutgoingEvent
from smartlink.server.webhooks.delivery import MAX_BUFFERED, Webhooks, WebhookTimes
from smartlink.server.webhooks.guard import Guard
from smartlink.server.webhooks.memory import MemoryQueue
from smartlink.server.webhooks.post import Poster
from smartlink.server.webhooks.queue import QueueUnavailable
from smartlink.server.webhooks.sqlite import SqliteQueue


async def test_events_have_the_documented_form() -> None:
    events = [
        OutgoingEvent("client_event", "private-a", "7", "client-x", '{"a":"ž"}', "1.2"),
        OutgoingEvent("cache_miss", "cache-a"),
        OutgoingEvent("subscription_count", "chat", subscription_count=3),
    ]
    async with receiver() as target, sink(app_with(WebhookTarget(target.url))) as (webhooks, _):
        for event in events:
            webhooks.emit(app_with(WebhookTarget(target.url)), event)
        webhooks.emit(app_with(WebhookTarget(target.url)), OutgoingEvent("cache_miss", "cache-a"))
        await eventually(lambda: len(target.events) == 3)

    assert len(target.posts) == 1
    assert target.events == [
        {"name": "client_event", "channel": "private-a", "user_id": "7", "event": "client-x", "data": '{"a":"ž"}',
         "socket_id": "1.2"},
        {"name": "cache_miss", "channel": "cache-a"},
        {"name": "subscription_count", "channel": "chat", "subscription_count": 3},
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("answers", "more"),
    [
        ([500, 404, 429], {}),
        ([301, 302, 307], {"headers": "Location: http://127.0.0.1:1/elsewhere\r\n"}),
        ([DROP, DROP, DROP], {}),
        ([HANG, HANG], {}),
        ([500, 500], {"body": b"x" * 1_000_000}),
    ],
)
async def test_a_failing_receiver_gets_everything_once_and_in_order_later(answers: list[int], more: Any) -> None:
    async with receiver(*answers, **more) as target:
        app = app_with(WebhookTarget(target.url))
        async with sink(app, timeout_s=0.3) as (webhooks, metrics):
            for number in range(250):
                webhooks.emit(app, client_event(number))
            await eventually(lambda: len(target.events) == 250)

    assert [event["data"] for event in target.events] == [str(number) for number in range(250)]
    assert [len(post["events"]) for post in target.posts] == [100, 100, 50]
    assert metrics.webhooks_failed == 0
    assert {request.split(" ")[1] for request in target.requests} == {"/hook"}


async def test_the_oldest_event_that_was_not_accepted_ages_until_it_is() -> None:
    async with receiver(500, 500) as target:
        app = app_with(WebhookTarget(target.url))
        async with sink(app) as (webhooks, _):
            assert webhooks.oldest_s() == 0
            webhooks.emit(app, client_event(0))
            await eventually(lambda: len(target.requests) == 2)
            assert webhooks.oldest_s() > 0
            await eventually(lambda: len(target.posts) == 1 and webhooks.oldest_s() == 0)


async def test_a_dead_receiver_does_not_delay_others() -> None:
    async with receiver(then=HANG) as dead, receiver() as good:
        app = app_with(WebhookTarget(dead.url), WebhookTarget(good.url))
        async with sink(app) as (webhooks, _):
            for number in range(3):
                webhooks.emit(app, client_event(number))
                await eventually(lambda number=number: len(good.events) == number + 1)


async def test_undelivered_events_are_kept_and_can_be_replayed() -> None:
    queue = MemoryQueue()
    async with receiver(then=500) as target:
        app = app_with(WebhookTarget(target.url))
        async with sink(app, queue=queue, retry_s=0.0) as (webhooks, metrics):
            webhooks.emit(app, client_event(1))
            await eventually(lambda: metrics.webhooks_failed == 1)
            (failed,) = await queue.failed()
            assert failed.reason == "answered 500"

            target.then = 204
            await queue.retry(failed.id)
            await eventually(lambda: len(target.events) == 1)


async def test_a_removed_address_is_not_posted_to() -> None:
    queue = MemoryQueue()
    async with receiver() as target:
        gone = app_with(WebhookTarget(target.url))
        async with sink(app_with(WebhookTarget("https://new.invalid/")), queue=queue) as (webhooks, metrics):
            webhooks.emit(gone, client_event(1))
            await eventually(lambda: metrics.webhooks_failed == 1)
            (failed,) = await queue.failed()

    assert failed.reason == "no longer an address of the application"
    assert target.requests == []


async def test_private_addresses_are_refused_and_logged() -> None:
    queue = MemoryQueue()
    async with receiver() as target:
        app, metrics = app_with(WebhookTarget(target.url)), Metrics()
        webhooks = Webhooks(
            apps=StaticApps([app]), queue=queue, poster=Poster(Guard(), 5), occupants=World().occupants,
            metrics=metrics, times=WebhookTimes(retry_s=0),
        )  # fmt: skip
        await webhooks.start()
        webhooks.emit(app, client_event(1))
        await eventually(lambda: metrics.webhooks_failed == 1)
        await webhooks.stop()

    assert (await queue.failed())[0].reason.startswith("refused: it is a private address")
    assert target.requests == []


class FlakyQueue(MemoryQueue):
    """Away while `is_away`."""

    is_away = False

    async def record(self, reports: Any) -> int:
        if self.is_away:
            raise QueueUnavailable("away")
        return await super().record(reports)


async def test_an_unavailable_queue_loses_only_events_beyond_the_buffer() -> None:
    queue = FlakyQueue()
    queue.is_away = True
    async with receiver() as target:
        app = app_with(WebhookTarget(target.url))
        async with sink(app, queue=queue) as (webhooks, metrics):
            for number in range(MAX_BUFFERED + 5):
                webhooks.emit(app, client_event(number))
            assert metrics.webhooks_dropped == 5
            await asyncio.sleep(0)
            queue.is_away = False
            await eventually(lambda: len(target.events) == MAX_BUFFERED)

    assert [event["data"] for event in target.events] == [str(number) for number in range(MAX_BUFFERED)]


class SlowToOpen(MemoryQueue):
    """Opens when it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.begun, self.may_open = asyncio.Event(), asyncio.Event()
        self.stops = 0

    async def start(self) -> None:
        self.begun.set()
        await self.may_open.wait()

    async def stop(self) -> None:
        self.stops += 1


async def test_a_stop_while_the_queue_opens_closes_it() -> None:
    queue = SlowToOpen()
    apps = StaticApps([app_with()])
    webhooks = Webhooks(
        apps=apps, queue=queue, poster=Poster(Guard(allow_private=True), 5), occupants=World().occupants,
        metrics=Metrics(), times=WebhookTimes(),
    )  # fmt: skip
    await webhooks.start()
    webhooks.emit(app_with(WebhookTarget("http://127.0.0.1:9/")), client_event(1))
    await queue.begun.wait()

    await webhooks.stop(timeout_s=0.1)

    assert queue.stops == 1


async def test_a_file_that_is_being_opened_is_closed_by_a_stop(tmp_path: Path) -> None:
    queue = SqliteQueue(tmp_path / "webhooks.db")
    opening = asyncio.create_task(queue.start())
    await asyncio.sleep(0)
    opening.cancel()

    await queue.stop()

    assert queue._connection is None
    assert not (tmp_path / "webhooks.db-wal").exists()  # SQLite takes its log away with the last connection


async def test_a_flood_of_channels_neither_delays_nor_drops_user_events() -> None:
    world = World()
    async with receiver() as target:
        app = app_with(WebhookTarget(target.url))
        async with sink(app, world=world, grace_s=0.0) as (webhooks, metrics):
            for number in range(MAX_BUFFERED + 5):
                webhooks.emit(app, OutgoingEvent("channel_vacated", f"chat-{number}"))
            webhooks.emit(app, OutgoingEvent("member_added", "presence-a", "7"))
            webhooks.emit(app, OutgoingEvent("member_removed", "presence-a", "7"))

            await eventually(lambda: len(target.events) >= 2, within_s=30)
            assert [event["name"] for event in target.events[:2]] == ["member_added", "member_removed"]
            assert metrics.webhooks_dropped == 5


async def test_a_stop_sends_waiting_events() -> None:
    async with receiver() as target:
        app = app_with(WebhookTarget(target.url))
        async with sink(app) as (webhooks, _):
            webhooks.emit(app, client_event(1))
        assert len(target.events) == 1


async def test_a_pending_leave_survives_a_restart_and_is_cancelled_by_a_return(tmp_path: Path) -> None:
    world = World()
    async with receiver() as target:
        app = app_with(WebhookTarget(target.url))
        async with sink(app, world=world, queue=SqliteQueue(tmp_path / "w.db"), grace_s=0.2) as (webhooks, _):
            for user in ("1", "2"):
                webhooks.emit(app, OutgoingEvent("member_added", "presence-a", user))
            await eventually(lambda: len(target.events) == 2)
            for user in ("1", "2"):
                webhooks.emit(app, OutgoingEvent("member_removed", "presence-a", user))
        async with sink(app, world=world, queue=SqliteQueue(tmp_path / "w.db"), restart_grace_s=0.5, grace_s=0.1) as (
            webhooks,
            _,
        ):
            world.users["1001", "presence-a"] = {"2"}
            webhooks.emit(app, OutgoingEvent("member_added", "presence-a", "2"))
            await eventually(lambda: len(target.events) == 3)

    assert target.events[2] == {"name": "member_removed", "channel": "presence-a", "user_id": "1"}
