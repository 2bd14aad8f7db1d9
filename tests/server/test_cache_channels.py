"""Cache channels and encrypted channels, over real sockets."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kit.client import connected
from kit.engines import Between
from kit.realtime import KEY, SECRET, an_app, call, realtime_server
from kit.waiting import eventually, eventually_told
from smartlink.protocol.signing import sign_channel
from smartlink.server.run.lifecycle import RealtimeServer

ANA = {"user_id": "1", "user_info": {"name": "Ana"}}
CACHE_CHANNELS = ["cache-a", "private-cache-a", "private-encrypted-cache-a", "presence-cache-a"]


async def publish(server: RealtimeServer, channel: str, data: str, **more: Any) -> None:
    body = json.dumps({"name": "e", "channel": channel, "data": data} | more).encode()
    answer = await call(server.port, "POST", "/apps/1001/events", body)
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("channel", CACHE_CHANNELS)
async def test_the_last_event_follows_the_subscription(server: RealtimeServer, channel: str) -> None:
    await publish(server, channel, "first")
    await publish(server, channel, "last")
    async with connected(server.port) as late:
        await late.subscribe(channel, ANA if channel.startswith("presence-") else None)

        assert await late.receive() == {"event": "e", "channel": channel, "data": "last"}
        assert await late.is_quiet()


@pytest.mark.parametrize("channel", CACHE_CHANNELS)
async def test_an_empty_cache_channel_sends_a_miss(server: RealtimeServer, channel: str) -> None:
    async with connected(server.port) as client:
        await client.subscribe(channel, ANA if channel.startswith("presence-") else None)

        assert await client.receive() == {"event": "pusher:cache_miss", "channel": channel}
        await publish(server, channel, "x")
        assert (await client.receive())["data"] == "x"


@pytest.mark.parametrize("channel", ["cached-a", "Cache-a", "private-cachea", "private-encrypted-a", "presence-a"])
async def test_other_channels_cache_nothing(server: RealtimeServer, channel: str) -> None:
    await publish(server, channel, "x")
    async with connected(server.port) as client:
        await client.subscribe(channel, ANA if channel.startswith("presence-") else None)

        assert await client.is_quiet()


async def test_client_events_and_live_events_are_not_cached(server: RealtimeServer) -> None:
    async with connected(server.port) as one, connected(server.port) as two, connected(server.port) as late:
        await publish(server, "private-cache-a", "kept")
        for client in (one, two):
            await client.subscribe("private-cache-a")
            await client.expect("e")
        one.send("client-x", {}, channel="private-cache-a")
        await two.expect("client-x")
        await publish(server, "private-cache-a", "fleeting", live=True)
        await late.subscribe("private-cache-a")

        assert (await late.receive())["data"] == "kept"


async def test_cached_events_have_a_time_to_live() -> None:
    async with realtime_server(an_app(cache_ttl_s=1)) as server:
        await publish(server, "cache-a", "x")
        shown = await call(server.port, "GET", "/apps/1001/channels/cache-a", params={"info": "cache"})
        assert shown.json() == {"occupied": False, "cache": {"data": "x", "ttl": 1}}
        history = server.node.history

        async def is_over() -> bool:
            return await history.latest("1001", "cache-a") is None

        await eventually_told(is_over)
        async with connected(server.port) as client:
            await client.subscribe("cache-a")
            await client.expect("pusher:cache_miss")
        shown = await call(server.port, "GET", "/apps/1001/channels/cache-a", params={"info": "cache"})
        assert shown.json() == {"occupied": False, "cache": None}


async def test_the_cache_attribute_is_for_cache_channels_only(server: RealtimeServer) -> None:
    one = await call(server.port, "GET", "/apps/1001/channels/chat", params={"info": "cache"})
    several = await call(server.port, "GET", "/apps/1001/channels", params={"info": "cache"})

    assert (one.status_code, several.status_code) == (400, 400)


async def test_apps_do_not_see_each_others_cache() -> None:
    other = an_app()
    async with realtime_server(other, type(other)("2", "key2", "secret2")) as server:
        await publish(server, "cache-a", "x")
        async with connected(server.port, key="key2") as stranger:
            await stranger.subscribe("cache-a")

            await stranger.expect("pusher:cache_miss")


async def test_an_event_published_while_the_cache_is_read_replaces_the_old_one() -> None:
    between = Between()
    async with realtime_server(engines=between.engines()) as server, connected(server.port) as client:
        await publish(server, "cache-a", "old")
        between.reading.shut()
        client.send("pusher:subscribe", {"channel": "cache-a"})
        await eventually(lambda: between.reading.waiting)
        await publish(server, "cache-a", "young")
        between.reading.open()

        await client.expect("pusher_internal:subscription_succeeded")
        assert (await client.receive())["data"] == "young"
        assert await client.is_quiet()


async def test_while_nodes_are_disconnected_neither_event_nor_miss_is_sent() -> None:
    between = Between()
    async with realtime_server(engines=between.engines()) as server, connected(server.port) as client:
        await publish(server, "cache-a", "x")
        between.is_away = True
        await client.subscribe("cache-a")

        assert await client.is_quiet()


async def test_encrypted_channels_need_signatures_and_refuse_client_events(server: RealtimeServer) -> None:
    async with connected(server.port) as client, connected(server.port) as other:
        client.send("pusher:subscribe", {"channel": "private-encrypted-a", "auth": "app-key:00"})
        await client.expect("pusher:subscription_error")
        client.send(
            "pusher:subscribe",
            {
                "channel": "private-encrypted-a",
                "auth": sign_channel(KEY, SECRET, client.socket_id, "private-encrypted-a"),
            },
        )
        await client.expect("pusher_internal:subscription_succeeded")
        await other.subscribe("private-encrypted-a")
        data = json.dumps({"nonce": "bm9uY2U=", "ciphertext": "Y2lwaGVy"})
        await publish(server, "private-encrypted-a", data)

        assert (await client.receive())["data"] == data
        await other.expect("e")
        client.send("client-x", {}, channel="private-encrypted-a")
        assert await client.error() == 4301
        assert await other.is_quiet()
