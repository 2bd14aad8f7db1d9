"""The typed client of the HTTP API, against a real server."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from kit import processes
from kit.client import Client, connected
from kit.ports import free_port
from kit.realtime import realtime_server
from kit.tcp import Listener
from kit.waiting import LIMIT_S
from smartlink.broadcasting import (
    BroadcastConfigError,
    BroadcastRefused,
    BroadcastSettings,
    BroadcastUnavailable,
    CacheChannel,
    Channel,
    ChannelEncryption,
    InvalidChannel,
    PresenceChannel,
    PrivateChannel,
)
from smartlink.broadcasting.server_api import ChannelState, ChannelUser, ServerApi, SyncServerApi

MASTER_KEY = base64.b64encode(b"k" * 32).decode()
POLICIES = '[{"pattern": "news", "history": 10}]'


def settings(port: int, **more: Any) -> BroadcastSettings:
    return BroadcastSettings(_env_file=None, reverb_port=port, **more)


@pytest.fixture
async def port() -> AsyncIterator[int]:
    async with realtime_server(reverb_app_channels=POLICIES) as server:
        yield server.port


@pytest.fixture
async def api(port: int) -> AsyncIterator[ServerApi]:
    async with ServerApi.from_settings(settings(port)) as api:
        yield api


async def a_member(client: Client, channel: str, user_id: str, **user_info: Any) -> None:
    await client.subscribe(channel, {"user_id": user_id, "user_info": user_info})


async def test_channels_and_members(port: int, api: ServerApi) -> None:
    assert await api.channels() == {}
    assert await api.connections() == 0
    async with connected(port) as ana, connected(port) as ben:
        await ana.subscribe("news")
        await a_member(ana, "presence-room", "7", name="Ana")
        await a_member(ben, "presence-room", "8", name="Ben")

        assert await api.connections() == 2
        assert await api.channels() == {"news": ChannelState(), "presence-room": ChannelState()}
        counted = await api.channels("presence-", info=["user_count", "subscription_count"])
        assert counted == {"presence-room": ChannelState(user_count=2, subscription_count=2)}
        assert await api.channel(PresenceChannel("room"), info=["user_count"]) == ChannelState(user_count=2)
        assert (await api.channel("elsewhere")).occupied is False
        assert sorted(user.id for user in await api.members("presence-room")) == ["7", "8"]
        known = await api.members("presence-room", with_user_info=True)
        assert sorted(known, key=lambda user: user.id) == [
            ChannelUser("7", {"name": "Ana"}),
            ChannelUser("8", {"name": "Ben"}),
        ]


async def test_what_is_published_arrives_and_is_kept(port: int, api: ServerApi) -> None:
    async with connected(port) as one, connected(port) as other:
        for client in (one, other):
            await client.subscribe("news")
        await api.publish([Channel("news"), "other"], "out", {"n": 1}, socket_id=one.socket_id)
        for n in (2, 3):
            await api.publish("news", "out", {"n": n})

        assert json.loads((await other.expect("out"))["data"]) == {"n": 1}
        assert json.loads((await one.expect("out"))["data"]) == {"n": 2}
    first = await api.history("news", limit=1)
    rest = await api.history("news", after=first.events[0].position)
    assert [json.loads(event.data)["n"] for event in (*first.events, *rest.events)] == [1, 2, 3]
    assert [first.complete, rest.complete] == [False, True]
    await api.publish(CacheChannel("state"), "out", {"n": 4})
    cached = (await api.channel(CacheChannel("state"), info=["cache"])).cache
    assert cached is not None
    assert json.loads(cached.data) == {"n": 4}


async def test_encrypted_channels_are_sealed_or_refused(port: int, api: ServerApi) -> None:
    with pytest.raises(BroadcastConfigError, match="BROADCAST_ENCRYPTION_MASTER_KEY"):
        await api.publish("private-encrypted-health", "out", {"secret": 1})
    async with (
        ServerApi.from_settings(settings(port, encryption_master_key=MASTER_KEY)) as sealing,
        connected(port) as client,
    ):
        await client.subscribe("private-encrypted-health")
        await sealing.publish("private-encrypted-health", "out", {"secret": 1})
        data = (await client.expect("out"))["data"]

    assert json.loads(ChannelEncryption(MASTER_KEY).open("private-encrypted-health", data)) == {"secret": 1}


async def test_users_are_ended_sent_back_and_lose_channels(port: int, api: ServerApi) -> None:
    for end, code in ((api.terminate, 4009), (api.reconnect, 4200)):
        async with connected(port) as client:
            await client.sign_in("7")
            await end(7)
            assert (await client.closed()).code == code
    async with connected(port) as client:
        await client.sign_in("7")
        await client.subscribe("private-orders", {"user_id": "7"})
        await api.revoke(7, PrivateChannel("orders"), reason="over")
        refused = await client.expect("pusher:subscription_error")
        assert refused["data"]["error"] == "over"
        assert (await api.channel("private-orders")).occupied is False


async def test_a_members_info_changes(port: int, api: ServerApi) -> None:
    async with connected(port) as ana:
        await a_member(ana, "presence-room", "7", name="Ana")

        assert await api.update_user_info("7", {"name": "Eva"}, [PresenceChannel("room"), "presence-empty"]) == (
            "presence-room",
        )
        assert await api.members("presence-room", with_user_info=True) == (ChannelUser("7", {"name": "Eva"}),)
        assert await api.update_user_info("7", {"name": "Ida"}) == ()


WRONG: list[tuple[Callable[[ServerApi], Any], type[Exception], str]] = [
    (lambda api: api.members("news"), BroadcastRefused, "Only presence channels have users"),
    (lambda api: api.channels(info=["user_count"]), BroadcastRefused, "filter_by_prefix=presence-"),
    (lambda api: api.history("news", limit=0), BroadcastRefused, "limit must be a whole number"),
    (lambda api: api.channel("no channel"), InvalidChannel, "no channel"),
    (lambda api: api.publish("no channel", "out", {}), InvalidChannel, "no channel"),
    (lambda api: api.terminate(""), ValueError, "not a user id"),
    (lambda api: api.terminate(True), ValueError, "not a user id"),
    (lambda api: api.revoke(PrivateChannel("orders")), TypeError, "takes the user first"),
]


@pytest.mark.parametrize(("call", "error", "why"), WRONG)
async def test_wrong_calls_are_explained(
    api: ServerApi, call: Callable[[ServerApi], Any], error: type[Exception], why: str
) -> None:
    with pytest.raises(error, match=why):
        await call(api)


async def test_wrong_credentials_and_no_server_are_told_apart(port: int) -> None:
    async with ServerApi.from_settings(settings(port, reverb_app_secret="wrong")) as api:
        with pytest.raises(BroadcastUnavailable, match="check app id, key, secret"):
            await api.channels()
    async with ServerApi.from_settings(settings(free_port())) as api:
        with pytest.raises(BroadcastUnavailable, match="check host, port and scheme"):
            await api.channels()
    with pytest.raises(BroadcastUnavailable, match="closed"):
        await api.channels()


@pytest.mark.parametrize("driver", ["log", "null", "redis"])
def test_a_driver_without_the_api_is_refused(driver: str) -> None:
    with pytest.raises(BroadcastConfigError, match=r'connection="reverb"'):
        ServerApi.from_settings(settings(1, driver=driver))
    assert ServerApi.from_settings(settings(1, driver=driver), connection="reverb")


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"[]", "not the Pusher API"),
        (b'{"channels": 7}', "not an answer of this API"),
        (b'{"channels": {"a": {"user_count": "many"}}}', "not an answer of this API"),
        (b"{" * 10_000, "not the Pusher API"),
        (b"\xff\xfe", "not the Pusher API"),
    ],
)
async def test_a_server_that_answers_nonsense_is_reported(body: bytes, why: str) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
        await writer.drain()

    listener = Listener(answer)
    await listener.start()
    try:
        async with ServerApi.from_settings(settings(listener.port)) as api:
            with pytest.raises(BroadcastUnavailable, match=why):
                await api.channels()
    finally:
        await listener.stop()


async def test_an_empty_object_of_php_is_no_channels() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b'HTTP/1.1 200 OK\r\ncontent-length: 15\r\n\r\n{"channels":[]}')
        await writer.drain()

    listener = Listener(answer)
    await listener.start()
    async with ServerApi.from_settings(settings(listener.port)) as api:
        assert await api.channels() == {}
    await listener.stop()


async def test_long_lists_are_whole(port: int, api: ServerApi) -> None:
    names = [f"{n:03}-{'x' * 180}" for n in range(500)]  # more than a driver reads of an answer
    async with connected(port) as client:
        for name in names:
            await client.subscribe(name)

        assert sorted(await api.channels()) == names


async def test_blocking_code_has_the_same(port: int) -> None:
    def use() -> None:
        with SyncServerApi.from_settings(settings(port)) as api:
            api.publish("news", "out", {"n": 1})
            assert [event.name for event in api.history("news").events] == ["out"]
            assert api.channels() == {}
            assert api.channel("news").occupied is False
            assert api.members("presence-room") == ()
            assert api.connections() == 0
            assert api.update_user_info("7", {}) == ()
            api.revoke(7)
            api.terminate(7)
            api.reconnect(7)
        with pytest.raises(BroadcastUnavailable, match="closed"):
            api.connections()
        api.close()

    await asyncio.to_thread(use)
    with pytest.raises(RuntimeError, match="use ServerApi"):
        SyncServerApi.from_settings(settings(port)).connections()


FORKS = """
import os
import sys
from smartlink.broadcasting.server_api import SyncServerApi

with SyncServerApi.from_settings() as api:
    assert api.connections() == 0
    if (child := os.fork()) == 0:
        os._exit(0 if api.connections() == 0 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert api.connections() == 0
"""


async def test_a_forked_child_has_connections_of_its_own(port: int, tmp_path: Path) -> None:
    process = await processes.spawn(
        sys.executable, "-W", "error", "-c", FORKS, cwd=tmp_path, env=os.environ | {"REVERB_PORT": str(port)}
    )

    async with asyncio.timeout(LIMIT_S):
        assert await process.wait() == 0
