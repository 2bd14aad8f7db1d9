"""Unmodified pusher-js and Echo miss nothing over lost connections: with `wsPath` alone, and with the JavaScript helper,
which also drops what comes twice and asks the application for no authorization again."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from kit.far import FarAway
from kit.ports import free_port
from kit.realtime import APP_ID, call, realtime_server
from kit.redis import fresh_prefix, redis_server
from peers.test_node_clients import MASTER_KEY, Echo, published, running
from smartlink.server.run.lifecycle import RealtimeServer

LIBRARIES = pytest.mark.parametrize("library", ["pusher", "echo", "vue", "react"])
CHANNELS = ("chat", "private-room", "presence-room")


class Events:
    """Publishes numbered events on all channels, and counts what a client got of them."""

    def __init__(self) -> None:
        self.published = 0
        self.got: dict[str, list[int]] = {channel: [] for channel in CHANNELS}
        self.asked: list[str] = []
        self.replayed = 0

    async def publish(self, port: int, count: int) -> None:
        for _ in range(count):
            data = json.dumps({"eventId": self.published, "text": "ž"})
            body = json.dumps({"name": "news", "channels": CHANNELS, "data": data}).encode()
            assert (await call(port, "POST", f"/apps/{APP_ID}/events", body)).status_code == 200
            self.published += 1

    def note(self, observation: dict[str, Any]) -> None:
        match observation["what"]:
            case "news":
                self.got[observation["channel"]].append(observation["data"]["eventId"])
            case "asked":
                self.asked.append(observation["channel"])
            case "resumed":
                self.replayed += observation["replayed"]
            case "gap" | "failed" | "refused":
                raise AssertionError(observation)

    async def until_all_came(self, client: Echo) -> None:
        """The last event of each channel has come; on each channel events come in order."""
        while any(self.published - 1 not in got for got in self.got.values()):
            self.note(await client.next())


def a_client(
    port: int, library: str = "pusher", *, helped: bool = True, authorization: str = "customHandler"
) -> AbstractAsyncContextManager[Echo]:
    options = {"library": library, "helped": helped, "authorization": authorization, "masterKey": MASTER_KEY}
    return running("resume.mjs", port=port, **options)


async def subscribe(client: Echo, *channels: str) -> list[str]:
    """Subscribe, and return for which channels the application was asked."""
    await client.until("state", state="connected")
    asked = []
    for channel in channels:
        client.do("subscribe", channel=channel)
        while (observation := await client.next())["what"] != "subscribed":
            asked += [observation["channel"]] if observation["what"] == "asked" else []
    return asked


@asynccontextmanager
async def line_to(server: RealtimeServer) -> AsyncIterator[FarAway]:
    line = FarAway(0, server.port, 0.0)
    await line.start()
    try:
        yield line
    finally:
        await line.close()


@LIBRARIES
async def test_a_cut_line_loses_and_doubles_nothing_and_asks_for_nothing(library: str) -> None:
    events = Events()
    async with realtime_server() as server, line_to(server) as line, a_client(line.port, library) as client:
        assert await subscribe(client, *CHANNELS) == ["private-room", "presence-room"]
        for _ in range(4):
            await events.publish(server.port, 5)
            await events.until_all_came(client)
            await line.cut()
            await events.publish(server.port, 5)
            await events.until_all_came(client)

        assert events.got == {channel: list(range(40)) for channel in CHANNELS}
        assert events.replayed > 4 * 5 * len(CHANNELS), "some came twice, and were dropped"
        assert events.asked == []


@LIBRARIES
async def test_with_only_ws_path_a_cut_line_loses_nothing(library: str) -> None:
    events = Events()
    async with (
        realtime_server() as server,
        line_to(server) as line,
        a_client(line.port, library, helped=False) as client,
    ):
        await subscribe(client, *CHANNELS)
        await events.publish(server.port, 5)
        await events.until_all_came(client)
        await line.cut()
        await events.publish(server.port, 5)
        await events.until_all_came(client)

        assert {channel: sorted(set(got)) for channel, got in events.got.items()} == {
            channel: list(range(10)) for channel in CHANNELS
        }
        assert events.asked == ["private-room", "presence-room"], "one for each channel, again"


@pytest.mark.parametrize("authorization", ["endpoint", "authEndpoint", "authorizer"])
async def test_every_way_to_authorize_is_asked_once(authorization: str) -> None:
    events = Events()
    async with (
        realtime_server() as server,
        line_to(server) as line,
        a_client(line.port, authorization=authorization) as client,
    ):
        assert await subscribe(client, *CHANNELS) == ["private-room", "presence-room"]
        for _ in range(2):
            await line.cut()
            await events.publish(server.port, 3)
            await events.until_all_came(client)

        assert events.got == {channel: list(range(6)) for channel in CHANNELS}
        assert events.asked == []


async def test_encrypted_events_are_told_apart_and_their_key_is_kept() -> None:
    channel = "private-encrypted-room"
    got = []
    async with realtime_server() as server, line_to(server) as line, a_client(line.port) as client:
        assert await subscribe(client, channel) == [channel]
        for number in range(0, 20, 5):
            events = [["trigger", channel, "news", {"n": number + each}] for each in range(5)]
            await published(server.port, *events[:3])
            got += [(await client.until("news"))["data"]["n"] for _ in range(3)]
            await line.cut()
            await published(server.port, *events[3:])
            while len(got) < number + 5:
                observation = await client.next()
                assert observation["what"] != "asked"
                if observation["what"] == "news":
                    got.append(observation["data"]["n"])

    assert got == list(range(20))


async def test_a_restarted_node_loses_nothing() -> None:
    events, port = Events(), free_port()
    with redis_server() as redis:
        settings = {"reverb_scaling_enabled": True, "redis_url": redis.url, "reverb_scaling_channel": fresh_prefix()}
        async with realtime_server(**settings) as other, AsyncExitStack() as clients:
            async with realtime_server(reverb_server_port=port, **settings):
                client = await clients.enter_async_context(a_client(port))
                await subscribe(client, *CHANNELS)
                await events.publish(other.port, 5)
                await events.until_all_came(client)
            await events.publish(other.port, 5)
            async with realtime_server(reverb_server_port=port, **settings):
                await events.until_all_came(client)

        assert events.got == {channel: list(range(10)) for channel in CHANNELS}
        assert events.asked == []


async def test_a_server_that_forgot_everything_is_told_that_the_client_is_no_newcomer() -> None:
    port = free_port()
    async with AsyncExitStack() as clients:
        async with realtime_server(reverb_server_port=port):
            client = await clients.enter_async_context(a_client(port))
            await subscribe(client, "chat", "private-room")
        async with realtime_server(reverb_server_port=port):
            gaps = [await client.until("gap") for _ in range(2)]
            assert sorted((gap["channel"], gap["reason"]) for gap in gaps) == [
                ("chat", "unknown"), ("private-room", "unknown")
            ]  # fmt: skip
            # On a channel that is new to the page nothing can be missing.
            client.do("subscribe", channel="private-new")
            await client.until("failed", channel="private-new")
            client.do("reconnect")
            observations = [await client.next() for _ in range(3)]
            assert "gap" not in [each["what"] for each in observations]


async def test_a_refused_authorization_is_asked_for_again() -> None:
    port = free_port()
    async with AsyncExitStack() as clients:
        async with realtime_server(reverb_server_port=port):
            client = await clients.enter_async_context(a_client(port))
            assert await subscribe(client, "private-room") == ["private-room"]
        async with realtime_server(reverb_server_port=port):
            # This server knows no session, so it refuses what was signed for another socket; the page sees none of it.
            assert await client.until("asked") == {"what": "asked", "channel": "private-room"}
            assert (await client.next())["what"] == "subscribed"


async def test_a_channel_that_was_left_is_authorized_anew() -> None:
    async with realtime_server() as server, a_client(server.port) as client:
        await subscribe(client, "private-room")
        client.do("unsubscribe", channel="private-room")
        client.do("subscribe", channel="private-room")
        assert (await client.next())["what"] == "asked"


async def test_an_authorization_that_has_expired_is_asked_for_again() -> None:
    async with realtime_server() as server, a_client(server.port) as client:
        client.do("grant", member={"user_id": "7", "expires_at": time.time() + 1})
        await client.until("granted")
        client.do("subscribe", channel="private-room")
        assert (await client.until("refused"))["type"] == "Expired"
        client.do("grant", member={"user_id": "7"})
        client.do("reconnect")
        assert await client.until("asked") == {"what": "asked", "channel": "private-room"}
        await client.until("subscribed")


async def test_what_was_revoked_is_asked_for_again_and_can_be_denied() -> None:
    async with realtime_server() as server, a_client(server.port) as client:
        await subscribe(client, "private-room")
        client.do("forbid")
        await client.until("granted")
        path, body = f"/apps/{APP_ID}/channels/private-room/revoke", json.dumps({"all": True}).encode()
        assert (await call(server.port, "POST", path, body)).status_code == 200
        assert await client.until("refused") == {
            "what": "refused", "channel": "private-room", "type": "Revoked", "status": 403
        }  # fmt: skip
        client.do("reconnect")
        await client.until("asked")
        assert (await client.next())["what"] == "refused"


async def test_only_events_that_are_sent_again_are_dropped_for_their_event_id() -> None:
    """An application's own `eventId` may be the id of a concert, and a client event may claim one that is to come."""
    async with (
        realtime_server() as server,
        line_to(server) as line,
        a_client(line.port) as client,
        a_client(server.port) as other,
    ):
        await subscribe(client, "private-room")
        await subscribe(other, "private-room")

        async def publish(data: dict[str, Any]) -> None:
            body = json.dumps({"name": "news", "channel": "private-room", "data": json.dumps(data)}).encode()
            assert (await call(server.port, "POST", f"/apps/{APP_ID}/events", body)).status_code == 200

        async def got(count: int) -> list[dict[str, Any]]:
            return [(await client.until("news"))["data"] for _ in range(count)]

        other.do("whisper", channel="private-room", data={"eventId": 5})
        await client.until("whisper")
        for _ in range(2):
            await publish({"eventId": 5})
        assert await got(2) == [{"eventId": 5}] * 2
        await line.cut()
        await publish({"eventId": 5, "sold": True})
        await publish({"no": "id"})
        await publish({"no": "id"})
        assert await got(3) == [{"eventId": 5, "sold": True}, {"no": "id"}, {"no": "id"}]
