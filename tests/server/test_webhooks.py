"""Webhooks: recipients, order, and failures of receivers and servers."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

import pytest

from kit import processes
from kit.client import connected
from kit.ports import free_port
from kit.realtime import SECRET, realtime_server
from kit.receiver import DROP, HANG, Receiver, receiver
from kit.serve import SMARTLINK
from kit.waiting import LIMIT_S, eventually, eventually_told
from smartlink.server.apps.base import App, WebhookTarget
from smartlink.server.apps.static import StaticApps
from smartlink.server.runtime.metrics import Metrics
from smartlink.server.webhooks.base import OutgoingEvent
from smartlink.server.webhooks.delivery import MAX_BUFFERED, Webhooks, WebhookTimes
from smartlink.server.webhooks.guard import Guard
from smartlink.server.webhooks.memory import MemoryQueue
from smartlink.server.webhooks.post import Poster
from smartlink.server.webhooks.queue import QueueUnavailable, WebhookQueue, WebhookReport
from smartlink.server.webhooks.sqlite import SqliteQueue

CHANNEL_EVENTS, MEMBER_EVENTS = ["channel_occupied", "channel_vacated"], ["member_added", "member_removed"]
COMING = {"channel_occupied", "member_added"}
ANA, BEN = {"user_id": "1", "user_info": {"name": "Ana"}}, {"user_id": "2"}


class World:
    """Who is where, as the presence store knows it."""

    def __init__(self) -> None:
        self.users: dict[tuple[str, str], set[str]] = {}

    async def occupants(self, app_id: str, channel: str) -> set[str] | None:
        await asyncio.sleep(0)
        return set(self.users.get((app_id, channel), ())) or None


def app_with(*hooks: WebhookTarget, number: str = "1001") -> App:
    return App(number, "app-key" if number == "1001" else f"key-{number}", SECRET, webhooks=hooks)


@asynccontextmanager
async def sink(
    *apps: App,
    world: World | None = None,
    queue: WebhookQueue | None = None,
    timeout_s: float = 5.0,
    restart_grace_s: float = 0.0,
    **times: float,
) -> AsyncIterator[tuple[Webhooks, Metrics]]:
    metrics = Metrics()
    webhooks = Webhooks(
        apps=StaticApps(apps),
        queue=queue or MemoryQueue(),
        poster=Poster(Guard(allow_private=True), timeout_s),
        occupants=(world or World()).occupants,
        metrics=metrics,
        times=WebhookTimes(restart_grace_s=restart_grace_s, first_pause_s=0.05, **times),
    )
    await webhooks.start()
    try:
        yield webhooks, metrics
    finally:
        await webhooks.stop()
        assert metrics.internal_errors == 0


# From a server, over sockets


async def test_first_and_last_are_posted_and_retried_until_accepted() -> None:
    async with receiver(500, 503) as target:
        async with realtime_server(reverb_webhook_url=target.url, reverb_webhook_grace=0.2) as server:
            async with connected(server.port) as ana, connected(server.port) as tab:
                await ana.subscribe("presence-chat", ANA)
                await tab.subscribe("presence-chat", ANA)
            await eventually(lambda: len(target.events) == 4)
            await eventually(lambda: server.metrics.webhooks_sent == 4)
            assert server.metrics.webhooks_retried >= 2

    assert [name for name in target.names if name in CHANNEL_EVENTS] == CHANNEL_EVENTS
    assert [name for name in target.names if name in MEMBER_EVENTS] == MEMBER_EVENTS
    assert {"name": "member_added", "channel": "presence-chat", "user_id": "1"} in target.events


async def test_a_page_reload_posts_nothing() -> None:
    async with receiver() as target:
        async with realtime_server(reverb_webhook_url=target.url, reverb_webhook_grace=5) as server:
            for _ in range(3):
                async with connected(server.port) as ana:
                    await ana.subscribe("presence-chat", ANA)
                await eventually(lambda: len(server.node.hub) == 0)
            async with connected(server.port) as ana:
                await ana.subscribe("presence-chat", ANA)
                await eventually(lambda: len(target.events) >= 2)

                assert sorted(target.names) == ["channel_occupied", "member_added"]


async def test_apps_do_not_get_each_others_webhooks() -> None:
    secrets = {"app-key": SECRET, "key-2": "secret-2"}
    async with receiver(secrets=secrets) as one, receiver(secrets=secrets) as two:
        apps = StaticApps(
            [
                App("1001", "app-key", SECRET, webhooks=(WebhookTarget(one.url),)),
                App("2", "key-2", "secret-2", webhooks=(WebhookTarget(two.url),)),
            ]
        )
        async with realtime_server(apps) as server:
            async with connected(server.port) as ana, connected(server.port, key="key-2") as ben:
                await ana.subscribe("chat")
                await ben.subscribe("other")
                await ben.subscribe("chat")
                await eventually(lambda: len(one.events) == 1 and len(two.events) == 2)

    assert {post["key"] for post in one.posts} == {"app-key"}
    assert {post["key"] for post in two.posts} == {"key-2"}
    assert [event["channel"] for event in two.events] == ["other", "chat"]


async def test_an_address_gets_only_the_events_it_selected() -> None:
    async with receiver() as all_of_it, receiver() as few:
        hooks = (
            WebhookTarget(all_of_it.url),
            WebhookTarget(few.url, ("member_added", "channel_vacated"), ("presence-room-",)),
        )
        async with realtime_server(StaticApps([app_with(*hooks)]), reverb_webhook_grace=0.1) as server:
            async with connected(server.port) as ana:
                await ana.subscribe("presence-chat", ANA)
                await ana.subscribe("presence-room-1", ANA)
                await ana.subscribe("public")
            await eventually(lambda: len(all_of_it.events) == 10 and len(few.events) == 2)

    assert few.events == [
        {"name": "member_added", "channel": "presence-room-1", "user_id": "1"},
        {"name": "channel_vacated", "channel": "presence-room-1"},
    ]


async def test_without_webhooks_no_file_is_created(tmp_path: Path) -> None:
    file = tmp_path / "var" / "webhooks.db"
    async with realtime_server(reverb_webhook_queue=f"sqlite:///{file}") as server, connected(server.port) as ana:
        await ana.subscribe("presence-chat", ANA)
    assert not file.parent.exists()


# The sink alone


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


def client_event(number: int) -> OutgoingEvent:
    return OutgoingEvent("client_event", "private-a", event="client-x", data=str(number))


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


# Several nodes over one queue


@pytest.mark.parametrize("seed", range(3))
async def test_the_last_announcement_is_true_in_any_order_of_reports(seed: int) -> None:
    """Three nodes tell of users who come, go and move between them; each brings its reports when it pleases."""
    chance = random.Random(seed)
    world, queue = World(), MemoryQueue()
    there = world.users.setdefault(("1001", "presence-a"), set())
    where: dict[str, set[int]] = {str(user): set() for user in range(20)}
    told: dict[str, list[str]] = {}

    class Slow:
        """The queue as a node that is slow sees it."""

        def __getattr__(self, name: str) -> Any:
            return getattr(queue, name)

        async def record(self, reports: list[WebhookReport]) -> int:
            await asyncio.sleep(chance.choice([0, 0, 0.01, 0.1, 0.2]))
            return await queue.record(reports)

    async with receiver() as target:
        app = app_with(WebhookTarget(target.url))
        times = {"grace_s": 0.05}
        async with (
            sink(app, world=world, queue=Slow(), **times) as (one, _),  # type: ignore[arg-type]
            sink(app, world=world, queue=Slow(), **times) as (two, _),  # type: ignore[arg-type]
            sink(app, world=world, queue=Slow(), **times) as (three, _),  # type: ignore[arg-type]
        ):
            nodes = (one, two, three)
            for _ in range(1_500):
                user, number = str(chance.randrange(20)), chance.randrange(3)
                tabs = where[user]
                if number in tabs:
                    tabs.discard(number)
                    if not tabs:
                        there.discard(user)
                        nodes[number].emit(app, OutgoingEvent("member_removed", "presence-a", user))
                else:
                    tabs.add(number)
                    if len(tabs) == 1:
                        there.add(user)
                        nodes[number].emit(app, OutgoingEvent("member_added", "presence-a", user))
                await asyncio.sleep(chance.choice([0, 0, 0, 0.002]))

            def believed() -> set[str]:
                told.clear()
                for event in target.events:
                    told.setdefault(event["user_id"], []).append(event["name"])
                return {user for user, names in told.items() if names[-1] == "member_added"}

            await eventually(lambda: believed() == there, what="what was told is what is true")
            await asyncio.sleep(0.5)
            await eventually(lambda: believed() == there, what="and stays so")

    for names in told.values():
        assert all(one != next_one for one, next_one in itertools.pairwise(names)), names


async def test_two_nodes_send_each_event_once_and_in_order() -> None:
    queue = MemoryQueue()
    async with receiver() as target:
        app = app_with(WebhookTarget(target.url))
        async with sink(app, queue=queue) as (one, first), sink(app, queue=queue) as (two, second):
            for number in range(400):
                (one if number % 2 else two).emit(app, client_event(number))
                if number % 40 == 0:
                    await asyncio.sleep(0.01)
            await eventually(lambda: len(target.events) == 400)

    numbers = [int(event["data"]) for event in target.events]
    assert sorted(numbers) == list(range(400))
    assert [n for n in numbers if n % 2] == list(range(1, 400, 2))
    assert first.webhooks_sent + second.webhooks_sent == 400


# A server that is killed


class Server:
    """`smartlink reverb start` in a process of its own."""

    def __init__(self, folder: Path, target: Receiver, **settings: str) -> None:
        self.folder, self.port = folder, free_port()
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith(("REVERB_", "APP_"))} | {
            "REVERB_SERVER_PORT": str(self.port),
            "REVERB_WEBHOOK_URL": target.url,
            "REVERB_WEBHOOK_ALLOWED_HOSTS": f"127.0.0.1:{target.port}",
            "REVERB_WEBHOOK_GRACE": "0.2",
            "REVERB_WEBHOOK_RESTART_GRACE": "0.5",
            "REVERB_WEBHOOK_TIMEOUT": "0.5",
            **settings,
        }
        self.log = folder / "server.log"

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = processes.popen(
                [SMARTLINK, "reverb", "start"], cwd=self.folder, env=self.environment, stdout=log, stderr=log
            )

    async def __aenter__(self) -> Self:
        self.start()

        async def listens() -> bool:
            assert self.process.poll() is None, self.log.read_text()
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", self.port)
            except OSError:
                return False
            writer.close()
            return True

        await eventually_told(listens, what=f"a server that listens: {self.log}")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.end(signal.SIGTERM)

    async def end(self, how: int) -> int:
        if self.process.poll() is None:
            self.process.send_signal(how)
        return await asyncio.to_thread(self.process.wait, LIMIT_S)

    def command(self, *words: str) -> tuple[int, str]:
        done = processes.run([SMARTLINK, *words], cwd=self.folder, env=self.environment, capture_output=True, text=True)
        return done.returncode, done.stdout + done.stderr


async def test_events_queued_before_a_kill_are_delivered_by_the_next_process(tmp_path: Path) -> None:
    async with receiver(then=503) as target:
        server = Server(tmp_path, target)
        async with server:
            async with connected(server.port) as ana:
                await ana.subscribe("presence-chat", ANA)
                await eventually(lambda: {e["name"] for post in target.refused for e in post["events"]} == COMING)
                await server.end(signal.SIGKILL)
        target.then = 200
        async with server:
            await eventually(lambda: len(target.events) == 4)

    assert [name for name in target.names if name in MEMBER_EVENTS] == MEMBER_EVENTS
    assert [name for name in target.names if name in CHANNEL_EVENTS] == CHANNEL_EVENTS


async def test_a_restart_posts_nothing_about_returning_users(tmp_path: Path) -> None:
    async with receiver() as target:
        server = Server(tmp_path, target, REVERB_WEBHOOK_RESTART_GRACE="6")
        async with server:
            async with connected(server.port) as ana, connected(server.port) as ben:
                await ana.subscribe("presence-chat", ANA)
                await ben.subscribe("presence-chat", BEN)
                await eventually(lambda: len(target.events) == 3)
                assert await server.end(signal.SIGTERM) == 0
        async with server, connected(server.port) as ana:
            await ana.subscribe("presence-chat", ANA)
            await eventually(lambda: len(target.events) == 4)

    assert target.events[3] == {"name": "member_removed", "channel": "presence-chat", "user_id": "2"}
    assert "Traceback" not in server.log.read_text()


async def test_commands_list_replay_and_delete_failed_webhooks(tmp_path: Path) -> None:
    async with receiver(then=500) as target:
        server = Server(tmp_path, target, REVERB_WEBHOOK_RETRY_SECONDS="0")
        code, said = await asyncio.to_thread(server.command, "webhooks", "failed")
        assert (code, "There is no queue at" in said) == (1, True)
        async with server, connected(server.port) as ana:
            await ana.subscribe("chat")
            await eventually(lambda: target.refused)

            async def failed() -> list[dict[str, Any]]:
                code, said = await asyncio.to_thread(server.command, "webhooks", "failed", "--json")
                assert code == 0
                found: list[dict[str, Any]] = json.loads(said)
                return found

            while not (batches := await failed()):
                pass
            assert (batches[0]["reason"], batches[0]["events"][0]["name"]) == ("answered 500", "channel_occupied")
            target.then = 200
            code, said = await asyncio.to_thread(server.command, "webhooks", "retry", str(batches[0]["id"]))
            assert (code, said) == (0, "1 batch queued again\n")
            await eventually(lambda: target.names == ["channel_occupied"])
            assert (await asyncio.to_thread(server.command, "webhooks", "failed"))[1] == "No failed webhooks\n"
            assert await asyncio.to_thread(server.command, "webhooks", "forget", "all") == (0, "0 batches deleted\n")
            code, said = await asyncio.to_thread(server.command, "webhooks", "retry", "x")
            assert (code, said) == (2, "'x' is not a batch id; give one, or all\n")
