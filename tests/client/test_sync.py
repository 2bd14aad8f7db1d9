"""The client without an event loop of the caller's: the same promises, from plain threads."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from kit.balancer import Balancer
from kit.ports import free_port
from kit.realtime import KEY, SECRET, realtime_server
from kit.subscribers import QUICK, publish
from kit.waiting import LIMIT_S
from smartlink.client import ClientClosed, Gap, Member, MemberAdded, Secret, SubscriptionFailed, SyncClient


def a_client(port: int, **options: Any) -> SyncClient:
    given = {"auth": Secret(KEY, SECRET, user_id="7"), "reconnect_s": QUICK} | options
    return SyncClient(f"ws://127.0.0.1:{port}", KEY, proxy=None, **given)


async def in_a_thread(work: Callable[[], Any]) -> Any:
    async with asyncio.timeout(LIMIT_S):
        return await asyncio.to_thread(work)


async def test_events_arrive_and_a_lost_line_loses_nothing() -> None:
    async with realtime_server() as server:
        line = Balancer(server.port)
        await line.start()
        opened = threading.Event()
        half = threading.Event()
        heard: list[Any] = []

        def listen() -> None:
            with a_client(line.port) as client:
                stream = client.subscribe("private-chat", LIMIT_S).events("news")
                opened.set()
                for event in stream:
                    assert not isinstance(event, Gap)
                    heard.append(event.data)
                    if len(heard) == 3:
                        half.set()
                    if len(heard) == 6:
                        return

        listening = asyncio.create_task(in_a_thread(listen))
        await in_a_thread(opened.wait)
        for number in range(3):
            await publish(server.port, "private-chat", {"eventId": number})
        await in_a_thread(half.wait)
        await line.cut()
        for number in range(3, 6):
            await publish(server.port, "private-chat", {"eventId": number})
        await listening
        await line.stop()

        assert heard == [{"eventId": number} for number in range(6)]


async def test_everything_else_is_there_too() -> None:
    def listen(port: int) -> None:
        gaps: list[Gap] = []
        with a_client(port) as client, a_client(port, auth=Secret(KEY, SECRET, user_id="8")) as other:
            client.connected(LIMIT_S)
            room, changes = (found := client.presence("presence-room", LIMIT_S)), found.changes()
            heard = room.events("client-typing", on_gap=gaps.append)
            assert room.me == Member("7")
            there = other.subscribe("presence-room")
            assert changes.get(LIMIT_S) == MemberAdded(Member("8"))
            assert set(room.members) == {"7", "8"}
            there.whisper("typing", 1)
            assert heard.get(LIMIT_S).data == 1
            user = client.sign_in(LIMIT_S)
            assert (user.id, user.online, client.state) == ("7", frozenset(), "connected")
            with pytest.raises(TimeoutError):
                user.watchlist().get(0.01)
            with pytest.raises(SubscriptionFailed):
                client.subscribe("private-encrypted-x", LIMIT_S)
            room.unsubscribe()
            assert list(heard) == []
            assert repr(client.channel("chat")) == "SyncChannel('chat')"
            client.channel("chat").ready(LIMIT_S)
        assert client.state == "closed"
        client.close()
        with pytest.raises(ClientClosed):
            client.subscribe("chat")

    async with realtime_server() as server:
        await in_a_thread(lambda: listen(server.port))


async def test_a_wait_that_times_out_loses_nothing() -> None:
    async with realtime_server() as server:
        loop = asyncio.get_running_loop()

        def listen() -> list[Any]:
            with a_client(server.port) as client:
                stream = client.subscribe("chat").events()
                heard: list[Any] = []
                for number in range(20):
                    with pytest.raises(TimeoutError):
                        stream.get(0.0001)
                    asyncio.run_coroutine_threadsafe(publish(server.port, "chat", number), loop).result(LIMIT_S)
                    heard.append(stream.get(LIMIT_S))
                return [event.data for event in heard]

        assert await in_a_thread(listen) == list(range(20))


@pytest.fixture
def interruptible() -> Iterator[None]:
    """SIGINT raises KeyboardInterrupt, also in a run that was started in the background, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_an_interrupted_loop_leaves_a_client_that_goes_on() -> None:
    with a_client(free_port()) as client:
        stream = client.channel("chat").events()
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt):
            next(stream)
        with pytest.raises(TimeoutError):
            stream.get(0.01)
        with pytest.raises(TimeoutError):
            client.subscribe("chat", 0.01)


def test_a_forked_child_is_told_and_its_parent_goes_on() -> None:
    with a_client(free_port()) as client:
        stream = client.channel("chat").events()
        child = os.fork()
        if child == 0:
            status = 1
            try:
                client.channel("other")
            except ClientClosed:
                client.close()
                status = 0
            finally:
                os._exit(status)
        _, status = os.waitpid(child, 0)

        assert os.waitstatus_to_exitcode(status) == 0
        with pytest.raises(TimeoutError):
            stream.get(0.01)


def test_its_own_callbacks_must_not_wait_for_it() -> None:
    errors: list[Exception] = []

    def on_state(_: object) -> None:
        try:
            client.channel("chat")
        except RuntimeError as error:
            errors.append(error)

    client = SyncClient(f"ws://127.0.0.1:{free_port()}", KEY, on_state=on_state, proxy=None)
    with client:
        with pytest.raises(TimeoutError):
            client.connected(0.1)
    assert errors
    with pytest.raises(ClientClosed):
        SyncClient("ws://x", KEY).channel("chat")
