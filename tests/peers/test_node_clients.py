"""laravel-echo over pusher-js, and the npm package `pusher`: all unmodified, in Node."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from kit import processes
from kit.client import connected
from kit.ports import free_port
from kit.realtime import APP_ID, KEY, SECRET, an_app, realtime_server
from kit.waiting import LIMIT_S, eventually_told
from smartlink.server.run.lifecycle import RealtimeServer

NODE = Path(__file__).parent / "node"
MASTER_KEY = base64.b64encode(b"an encryption key of 32 bytes ok").decode()
EVENT = "App\\Events\\MessageSent"
MAX_LINE_BYTES = 64 * 1024 * 1024
"""Longest observation: what hundreds of clients were sent."""


@pytest.fixture
async def server() -> AsyncIterator[RealtimeServer]:
    async with realtime_server() as running:
        yield running


class Echo:
    """One client in a Node process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.socket_id = ""

    def do(self, what: str, **more: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": what} | more).encode() + b"\n")

    def signal(self, how: int) -> None:
        self._process.send_signal(how)

    async def next(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        async with asyncio.timeout(LIMIT_S):
            line = await self._process.stdout.readline()
        assert line, "the Node process ended"
        observation: dict[str, Any] = json.loads(line)
        return observation

    async def until(self, what: str, **more: Any) -> dict[str, Any]:
        """The next observation of this kind; others are passed over."""
        while True:
            observation = await self.next()
            if observation["what"] == what and more.items() <= observation.items():
                return observation

    async def connected(self) -> None:
        self.socket_id = (await self.until("state", state="connected"))["socket"]


@asynccontextmanager
async def running(script: str, **options: Any) -> AsyncIterator[Echo]:
    process = await processes.spawn(
        "node", script, json.dumps({"key": KEY, "secret": SECRET} | options), cwd=NODE,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
        limit=MAX_LINE_BYTES,
    )  # fmt: skip
    client = Echo(process)
    try:
        yield client
        client.do("end")
        async with asyncio.timeout(LIMIT_S):
            await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def echo(port: int, user_id: int = 1, name: str = "Ana") -> AbstractAsyncContextManager[Echo]:
    return running("echo.mjs", port=port, id=user_id, name=name)


def pusher(port: int, user_id: str = "1", watchlist: list[str] | None = None) -> AbstractAsyncContextManager[Echo]:
    return running("pusher.mjs", port=port, appId=APP_ID, id=user_id, watchlist=watchlist or [], masterKey=MASTER_KEY)


async def published(port: int, *calls: list[Any]) -> list[dict[str, Any]]:
    options = {
        "port": port, "id": APP_ID, "key": KEY, "secret": SECRET, "masterKey": MASTER_KEY, "calls": calls,
    }  # fmt: skip
    process = await processes.spawn(
        "node", "publish.mjs", json.dumps(options), cwd=NODE, stdout=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(LIMIT_S):
            output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return [json.loads(line) for line in output.splitlines()]


async def test_echo_receives_events_by_class_name(server: RealtimeServer) -> None:
    async with echo(server.port) as ana, echo(server.port, 2, "Ben") as ben:
        await ana.connected()
        await ben.connected()
        for client in (ana, ben):
            client.do("public", channel="chat")
            await client.until("subscribed")
        answers = await published(
            server.port,
            ["trigger", "chat", EVENT, {"message": {"id": 1}}, {"socket_id": ana.socket_id}],
            ["trigger", "chat", EVENT, {"message": {"id": 2}}],
        )

        assert [answer["status"] for answer in answers] == [200, 200]
        assert (await ana.until("event"))["data"] == {"message": {"id": 2}}
        assert [(await ben.until("event"))["data"]["message"]["id"] for _ in range(2)] == [1, 2]


async def test_echo_whispers_on_private_channels_and_receives_refusals(server: RealtimeServer) -> None:
    async with echo(server.port) as ana, echo(server.port, 2, "Ben") as ben:
        for client in (ana, ben):
            await client.connected()
            client.do("private", channel="room")
            await client.until("subscribed")
        ana.do("whisper", channel="room", data={"typing": True})
        assert (await ben.until("whisper"))["data"] == {"typing": True}
        ana.do("private", channel="forbidden")

        assert (await ana.until("refused"))["status"] == 401


async def test_echo_sees_members_joins_and_leaves(server: RealtimeServer) -> None:
    async with echo(server.port) as ana:
        await ana.connected()
        ana.do("presence", channel="chat")
        assert (await ana.until("here"))["users"] == [{"id": 1, "name": "Ana"}]
        async with echo(server.port, 2, "Ben") as ben:
            await ben.connected()
            ben.do("presence", channel="chat")
            assert (await ana.until("joining"))["user"] == {"id": 2, "name": "Ben"}
            assert len((await ben.until("here"))["users"]) == 2

        assert (await ana.until("leaving"))["user"] == {"id": 2, "name": "Ben"}


async def test_echo_recovers_from_a_server_restart() -> None:
    port = free_port()
    async with AsyncExitStack() as clients:
        async with realtime_server(reverb_server_port=port):
            client = await clients.enter_async_context(echo(port))
            await client.connected()
            client.do("private", channel="room")
            await client.until("subscribed")
        async with realtime_server(reverb_server_port=port):
            await client.until("state", state="connected")
            await client.until("subscribed")
            await published(port, ["trigger", "private-room", EVENT, {"n": 1}])

            assert (await client.until("event"))["data"] == {"n": 1}


async def test_over_capacity_clients_retry_until_there_is_room() -> None:
    async with realtime_server(reverb_app_max_connections=1) as server, AsyncExitStack() as clients:
        async with connected(server.port):
            client = await clients.enter_async_context(echo(server.port))
            assert (await client.until("error"))["code"] == 4100
        await client.connected()


async def test_the_npm_publishers_queries_work(server: RealtimeServer) -> None:
    async with connected(server.port) as member:
        await member.subscribe("presence-a", {"user_id": "7"})
        await member.subscribe("chat")
        batch = [{"channel": "chat", "name": str(n), "data": n} for n in range(3)]
        answers = await published(
            server.port,
            ["triggerBatch", batch],
            ["get", {"path": "/channels", "params": {"filter_by_prefix": "presence-", "info": "user_count"}}],
            ["get", {"path": "/channels/presence-a/users"}],
            ["get", {"path": "/channels/chat", "params": {"info": "user_count"}}],
            ["trigger", ["chat"], "e", "x" * 20_000],
            ["terminateUserConnections", "auth0|5"],
            ["terminateUserConnections", "7"],
        )

        assert [answer["status"] for answer in answers] == [200, 200, 200, 400, 413, 200, 200]
        assert answers[1]["body"] == {"channels": {"presence-a": {"user_count": 1}}}
        assert answers[2]["body"] == {"users": [{"id": "7"}]}
        assert [(await member.receive())["event"] for _ in range(3)] == ["0", "1", "2"]
        assert (await member.closed()).code == 4009


async def test_pusher_js_signs_in_and_receives_its_users_events(server: RealtimeServer) -> None:
    async with pusher(server.port, "7") as ana:
        await ana.until("state", state="connected")
        ana.do("signin")
        ana.do("subscribe", channel="presence-a")
        # The endpoint signs without channel_data: the member comes from the sign-in.
        assert await ana.until("subscribed") == {
            "what": "subscribed", "channel": "presence-a", "count": 1, "me": {"id": "7", "info": {"name": "7"}},
        }  # fmt: skip

        async def reach() -> bool:
            return (await server.node.presence.count(APP_ID, "#server-to-user-7")).subscriptions == 1

        await eventually_told(reach)
        answers = await published(server.port, ["sendToUser", "7", "greeting", {"hello": "you"}])

        assert answers[0]["status"] == 200
        assert (await ana.until("to user"))["data"] == {"hello": "you"}


async def test_pusher_js_receives_watchlist_events(server: RealtimeServer) -> None:
    async with pusher(server.port, "1", ["2", "3"]) as ana:
        await ana.until("state", state="connected")
        ana.do("signin")
        assert (await ana.until("offline"))["users"] == ["2", "3"]
        async with pusher(server.port, "3") as ben:
            await ben.until("state", state="connected")
            ben.do("signin")
            assert (await ana.until("online"))["users"] == ["3"]

        assert (await ana.until("offline"))["users"] == ["3"]


async def test_pusher_js_reads_cache_channels_and_misses(server: RealtimeServer) -> None:
    async with pusher(server.port) as ana:
        await ana.until("state", state="connected")
        ana.do("subscribe", channel="private-cache-a")
        assert (await ana.next())["what"] == "subscribed"
        assert (await ana.next())["what"] == "miss"
        await published(server.port, ["trigger", "private-cache-b", "greeting", {"n": 1}])
        ana.do("subscribe", channel="private-cache-b")

        assert (await ana.next())["what"] == "subscribed"
        assert (await ana.next())["data"] == {"n": 1}


async def test_pusher_js_decrypts_the_npm_publishers_events(server: RealtimeServer) -> None:
    async with pusher(server.port) as ana:
        await ana.until("state", state="connected")
        for channel in ("private-encrypted-a", "private-encrypted-cache-a"):
            ana.do("subscribe", channel=channel)
            await ana.until("subscribed")
            await published(server.port, ["trigger", channel, "greeting", {"secret": 42}])

            assert await ana.until("event") == {"what": "event", "channel": channel, "data": {"secret": 42}}


async def test_pusher_js_receives_subscription_counts() -> None:
    async with (
        realtime_server(an_app(sends_subscription_counts=True)) as server,
        pusher(server.port) as ana,
        connected(server.port) as other,
    ):
        await ana.until("state", state="connected")
        ana.do("subscribe", channel="chat")
        assert (await ana.until("count"))["count"] == 1
        await other.subscribe("chat")

        assert await ana.until("count") == {"what": "count", "channel": "chat", "count": 2, "kept": 2}
