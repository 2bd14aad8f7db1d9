"""Slow engines and disconnected nodes: nothing is duplicated, left behind or missed."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest

from kit.client import Client, connected
from kit.engines import Between
from kit.realtime import KEY, SECRET, an_app, call, realtime_server
from kit.waiting import eventually, eventually_told
from kit.xhr import XhrClient
from smartlink.protocol import encoding
from smartlink.protocol.session import PresenceMember
from smartlink.protocol.signing import sign_channel, sign_user
from smartlink.server.run.lifecycle import RealtimeServer


@asynccontextmanager
async def node(between: Between) -> AsyncIterator[RealtimeServer]:
    async with realtime_server(engines=between.engines()) as server:
        yield server
        assert server.metrics.internal_errors == 0


async def publish(server: RealtimeServer, channel: str, data: str, **more: Any) -> httpx2.Response:
    body = json.dumps({"name": "e", "channel": channel, "data": data} | more).encode()
    return await call(server.port, "POST", "/apps/1001/events", body)


def ask_for(client: Client, channel: str, user_id: str | None = None) -> None:
    """Send a right subscription; the answer is for the test to read."""
    data = {"channel": channel}
    if user_id is not None:
        data["channel_data"] = json.dumps({"user_id": user_id})
        data["auth"] = sign_channel(KEY, SECRET, client.socket_id, channel, data["channel_data"])
    client.send("pusher:subscribe", data)


async def counts(server: RealtimeServer) -> dict[str, Any]:
    answer = await call(server.port, "GET", "/apps/1001/channels", params={"info": "subscription_count"})
    channels: dict[str, Any] = answer.json()["channels"]
    return channels


async def test_two_concurrent_subscriptions_to_one_channel_count_once() -> None:
    between = Between()
    async with node(between) as server, connected(server.port) as client:
        between.joining.shut()
        ask_for(client, "chat")
        ask_for(client, "chat")
        await eventually(lambda: between.joining.waiting)
        between.joining.open()
        for _ in range(2):
            await client.expect("pusher_internal:subscription_succeeded")
        await publish(server, "chat", "once")

        assert (await client.receive())["data"] == "once"
        assert await client.is_quiet()
        assert await counts(server) == {"chat": {"subscription_count": 1}}


async def test_messages_during_a_wait_for_an_engine_are_handled_in_order() -> None:
    between = Between()
    async with node(between) as server, connected(server.port) as client:
        between.joining.shut()
        ask_for(client, "chat")
        client.send("pusher:unsubscribe", {"channel": "chat"})
        ask_for(client, "news")
        await eventually(lambda: between.joining.waiting)
        between.joining.open()
        assert (await client.receive())["channel"] == "chat"
        assert (await client.receive())["channel"] == "news"
        await publish(server, "chat", "x")

        assert await client.is_quiet()
        assert await counts(server) == {"news": {"subscription_count": 1}}
        assert between.nodes[0].subscribed == {("1001", "news")}


async def test_the_maximum_of_waiting_messages_is_handled_after_the_wait() -> None:
    between = Between()
    async with node(between) as server, connected(server.port) as client:
        await client.subscribe("chat")
        between.joining.shut()
        texts = [json.dumps({"event": "pusher:subscribe", "data": {"channel": name}}) for name in ("news", "chat")]
        first, again = (bytes((0x81, 0x80 | len(text))) + bytes(4) + text.encode() for text in texts)
        client.writer.write(first + again * 250)  # at once; of those after the first, nothing waits
        await eventually(lambda: between.joining.waiting)
        between.joining.open()
        answered = [(await client.receive())["channel"] for _ in range(251)]

        assert answered == ["news"] + ["chat"] * 250
        client.send("pusher:unsubscribe", {"channel": "chat"})
        ask_for(client, "other")
        assert (await client.receive())["channel"] == "other"


async def test_disconnecting_while_joining_leaves_nothing_behind() -> None:
    between = Between()
    async with node(between) as server, connected(server.port) as other:
        await other.subscribe("presence-a", {"user_id": "2"})
        async with connected(server.port) as client:
            between.joining.shut()
            ask_for(client, "presence-a", "1")
            await eventually(lambda: between.joining.waiting)
            client.writer.transport.abort()
            await eventually(lambda: len(server.node.hub) == 1)
        between.joining.open()
        users = [json.loads((await other.receive())["data"])["user_id"] for _ in range(2)]

        assert users == ["1", "1"]
        assert await other.is_quiet()
        assert await counts(server) == {"presence-a": {"subscription_count": 1}}
        await publish(server, "presence-a", "still heard")
        await other.expect("e")
    await eventually(lambda: not between.nodes[0].subscribed)


async def test_disconnecting_while_signing_in_leaves_nothing_behind() -> None:
    between = Between()
    async with node(between) as server:
        async with connected(server.port) as client:
            between.joining.shut()
            user_data = json.dumps({"id": "1", "watchlist": ["2"]})
            auth = sign_user(KEY, SECRET, client.socket_id, user_data)
            client.send("pusher:signin", {"auth": auth, "user_data": user_data})
            await eventually(lambda: between.joining.waiting)
            client.writer.transport.abort()
            await eventually(lambda: len(server.node.hub) == 0)
        between.joining.open()

        async def is_offline() -> bool:
            return (await between.presence.count("1001", "#user-1")).subscriptions == 0

        await eventually_told(is_offline)
        assert not between.nodes[0].subscribed
        assert server.node.hub.of_user("1001", "1") == []


async def test_a_leave_does_not_unsubscribe_a_concurrent_join() -> None:
    between = Between()
    async with node(between) as server, connected(server.port) as first, connected(server.port) as second:
        await first.subscribe("chat")
        between.joining.shut()
        ask_for(second, "chat")
        await eventually(lambda: between.joining.waiting)
        first.send("pusher:unsubscribe", {"channel": "chat"})
        assert await first.is_quiet()
        between.joining.open()
        await second.expect("pusher_internal:subscription_succeeded")
        await publish(server, "chat", "heard")

        assert (await second.receive())["data"] == "heard"


async def test_members_who_join_during_a_join_are_announced() -> None:
    between = Between()
    async with (
        node(between) as one,
        node(between) as two,
        connected(one.port) as ana,
        connected(two.port) as ben,
        connected(two.port) as cleo,
    ):
        await cleo.subscribe("presence-a", {"user_id": "3"})
        between.joining.shut()
        ask_for(ana, "presence-a", "1")
        await eventually(lambda: between.joining.waiting == 1)
        ask_for(ben, "presence-a", "2")
        await eventually(lambda: between.joining.waiting == 2)
        cleo.send("pusher:unsubscribe", {"channel": "presence-a"})
        assert await cleo.is_quiet()
        between.joining.open()
        seen: dict[str, set[str]] = {}
        for name, client in (("ana", ana), ("ben", ben)):
            data = json.loads((await client.expect("pusher_internal:subscription_succeeded"))["data"])
            seen[name] = set(data["presence"]["ids"])
            client.send("pusher:ping", {})
            while (message := await client.receive())["event"] != "pusher:pong":
                user_id = json.loads(message["data"])["user_id"]
                change = seen[name].add if message["event"].endswith("added") else seen[name].discard
                change(user_id)

        assert seen == {"ana": {"1", "2"}, "ben": {"1", "2"}}


async def test_a_disconnected_node_keeps_serving_its_own_clients() -> None:
    between = Between()
    async with node(between) as server, connected(server.port) as ana, connected(server.port) as ben:
        between.is_away = True
        up = await call(server.port, "GET", "/up")
        problem = {"problems": ["Other nodes are unreachable"], "warnings": []}
        assert (up.status_code, up.json()) == (200, {"health": "degraded"} | problem)
        for client in (ana, ben):
            await client.subscribe("private-a")
        ana.send("client-x", {"typing": True}, channel="private-a")
        assert (await ben.receive())["data"] == {"typing": True}
        refused = await publish(server, "private-a", "durable")
        fleeting = await publish(server, "private-a", "live", live=True)
        assert (refused.status_code, refused.headers["Retry-After"], fleeting.status_code) == (503, "1", 200)
        assert (await ben.receive())["data"] == "live"
        await ana.expect("e")

        await ana.subscribe("presence-a", {"user_id": "1"})
        await ben.subscribe("presence-a", {"user_id": "2"})
        await ana.expect("pusher_internal:member_added")
        ben.send("pusher:unsubscribe", {"channel": "presence-a"})
        await ana.expect("pusher_internal:member_removed")
        terminated = await call(server.port, "POST", "/apps/1001/users/1/terminate_connections", b"{}")
        assert terminated.status_code == 503
        assert (await ana.closed()).code == 4009

        between.is_away = False
        assert (await call(server.port, "GET", "/up")).json() == {"health": "OK"}
        await publish(server, "private-a", "after")
        assert (await ben.receive())["data"] == "after"


async def test_a_join_of_a_large_channel_encodes_the_newcomer_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    for name in ("presence_state", "member_entry", "member_added"):
        plain = getattr(encoding, name)
        monkeypatch.setattr(encoding, name, lambda *a, n=name, f=plain: (calls.append(n), f(*a))[1])
    async with realtime_server() as server, connected(server.port) as client, connected(server.port) as other:
        for number in range(1_000):
            await server.node.presence.join("1001", "presence-a", f"9.{number}", PresenceMember(f"m{number}"))
        await client.subscribe("presence-a", {"user_id": "new"})
        await server.node.presence.leave("1001", "presence-a", "9.500")
        calls.clear()
        data = await other.subscribe("presence-a", {"user_id": "newer"})

        assert data["presence"]["count"] == 1_001
        assert data["presence"]["ids"] == [f"m{number}" for number in range(1_000) if number != 500] + ["new", "newer"]
        assert calls == ["member_entry", "member_added"]


async def test_too_many_events_during_a_join_end_the_connection() -> None:
    between = Between()
    async with node(between) as server, connected(server.port) as client:
        between.joining.shut()
        ask_for(client, "presence-a", "1")
        await eventually(lambda: between.joining.waiting)
        for _ in range(27):
            await publish(server, "presence-a", "x" * 10_000)
        between.joining.open()

        assert await client.error() == 4100
        assert (await client.closed()).code == 4100
        await eventually(lambda: not between.nodes[0].subscribed)
    assert await counts_of(between) == {}


async def test_too_many_waiting_messages_over_http_end_the_connection() -> None:
    """What a request of the fallback brings has been read already: unlike frames of a socket, it cannot be left there."""
    between = Between()
    async with node(between) as server, XhrClient(server.port) as client:
        between.joining.shut()
        await client.send("pusher:subscribe", {"channel": "chat"})
        await eventually(lambda: between.joining.waiting)
        ping = json.dumps({"event": "pusher:ping"})
        for _ in range(3):
            await client.post(json.dumps([ping] * 100).encode())
        assert (await client.closed()).code == 4100
        between.joining.open()
        await eventually(lambda: not between.nodes[0].subscribed)
    assert await counts_of(between) == {}


async def test_requests_during_a_wait_are_all_answered_in_order() -> None:
    between = Between()
    names = [f"c{number}" for number in range(200)]
    async with node(between) as server, connected(server.port) as client:
        between.joining.shut()
        for name in names:
            ask_for(client, name)
        await eventually(lambda: between.joining.waiting)
        between.joining.open()

        assert [(await client.receive())["channel"] for _ in names] == names


async def counts_of(between: Between) -> dict[str, Any]:
    return await between.presence.channels("1001")


async def test_authorization_in_time_counts_even_if_engines_are_slow() -> None:
    between = Between()
    async with (
        realtime_server(an_app(authorization_timeout_s=1, ping_interval_s=60), engines=between.engines()) as server,
        connected(server.port) as client,
    ):
        await client.subscribe("private-a")
        between.joining.shut()
        ask_for(client, "chat")
        await eventually(lambda: between.joining.waiting)
        held = server.node.hub.connection("1001", client.socket_id)
        assert held is not None
        held.sweep(held.heard_at + 30)  # type: ignore[attr-defined]
        between.joining.open()
        await client.expect("pusher_internal:subscription_succeeded")
        assert await client.is_quiet()
