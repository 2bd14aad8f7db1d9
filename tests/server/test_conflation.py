"""Conflated channels over sockets: newcomers, senders, sessions, nodes, and changes while the server runs."""

from __future__ import annotations

import json
from contextlib import AsyncExitStack
from typing import Any

import pytest

from kit.changing_apps import ChangingApps
from kit.client import Client, connected
from kit.cluster import cluster
from kit.realtime import APP_ID, an_app, call, realtime_server
from kit.receiver import receiver
from kit.waiting import eventually
from smartlink.protocol.signing import sign_channel
from smartlink.server.apps.base import App, WebhookTarget
from smartlink.server.apps.policies import ChannelPolicy
from smartlink.server.run.lifecycle import RealtimeServer

TOKEN = "a-session-token-of-the-tests"
SHORT_MS, LONG_MS = 50, 60_000
"""A period that ends in a test, and one that does not."""


def conflated(period_ms: int | None, pattern: str = "**", **app: Any) -> App:
    return an_app(channels=(ChannelPolicy(pattern, conflate_ms=period_ms),), **app)


async def publish(port: int, number: int, channel: str = "prices", **more: Any) -> None:
    event = {"name": "price", "channel": channel, "data": str(number)} | more
    answer = await call(port, "POST", f"/apps/{APP_ID}/events", json.dumps(event).encode())
    assert answer.status_code == 200, answer.text


async def publish_all(port: int, numbers: range, channel: str = "prices") -> None:
    """Publish in batches of ten, one behind the other."""
    for start in range(numbers.start, numbers.stop, 10):
        batch = [
            {"name": "price", "channel": channel, "data": str(number)}
            for number in range(start, min(start + 10, numbers.stop))
        ]
        answer = await call(port, "POST", f"/apps/{APP_ID}/batch_events", json.dumps({"batch": batch}).encode())
        assert answer.status_code == 200, answer.text


async def prices(client: Client, count: int) -> list[int]:
    return [int((await client.expect("price"))["data"]) for _ in range(count)]


async def prices_until(client: Client, last: int) -> list[int]:
    """The prices received up to the last one."""
    got: list[int] = []
    while last not in got:
        got += await prices(client, 1)
    return got


def waiting(server: RealtimeServer) -> int:
    """Channels on which something waits."""
    return len(server.node._conflation.waiting)


async def test_of_many_events_the_first_and_the_last_arrive_in_order() -> None:
    async with realtime_server(conflated(SHORT_MS)) as server, AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(connected(server.port)) for _ in range(3)]
        for client in clients:
            await client.subscribe("prices")
        await publish_all(server.port, range(200))
        for client in clients:
            got = await prices_until(client, 199)
            assert got[0] == 0
            assert got == sorted(set(got))
            assert len(got) == 200 - server.metrics.conflated
            assert await client.is_quiet()
        assert server.metrics.conflated > 100


async def test_what_waits_goes_out_when_the_policy_is_gone_and_new_events_at_once() -> None:
    apps = ChangingApps([conflated(LONG_MS)])
    async with realtime_server(apps) as server, connected(server.port) as client:
        await client.subscribe("prices")
        for number in range(4):
            await publish(server.port, number)
        assert await prices(client, 1) == [0]
        assert await client.is_quiet()
        apps.become(conflated(None))
        assert await prices(client, 1) == [3]
        for number in range(4, 6):
            await publish(server.port, number)
        assert await prices(client, 2) == [4, 5]

        apps.become(conflated(LONG_MS))
        for number in range(6, 9):
            await publish(server.port, number)
        assert await prices(client, 1) == [6]
        assert await client.is_quiet()
        apps.become(conflated(LONG_MS - 1))
        assert await prices(client, 1) == [8]


async def test_members_and_counts_are_not_held_back() -> None:
    app = conflated(LONG_MS, sends_subscription_counts=True)
    async with realtime_server(app) as server, connected(server.port) as ana, connected(server.port) as ben:
        await ana.subscribe("presence-room", {"user_id": "1"})
        await ana.subscribe("prices")
        await ana.expect("pusher_internal:subscription_count")
        for number in range(3):
            await publish(server.port, number, "presence-room")
            await publish(server.port, number)
        assert await prices(ana, 2) == [0, 0]
        await ben.subscribe("presence-room", {"user_id": "2"})
        await ana.expect("pusher_internal:member_added")
        await ben.subscribe("prices")
        await ana.expect("pusher_internal:subscription_count")


async def test_an_excluded_sender_gets_the_last_event_of_the_others() -> None:
    apps = ChangingApps([conflated(LONG_MS)])
    async with realtime_server(apps) as server, connected(server.port) as ana, connected(server.port) as ben:
        for client in (ana, ben):
            await client.subscribe("prices")
        await publish(server.port, 0)
        await publish(server.port, 1)
        await publish(server.port, 2, socket_id=ana.socket_id)
        apps.become(conflated(None))
        assert await prices(ana, 2) == [0, 1]
        assert await prices(ben, 2) == [0, 2]


async def test_client_events_are_conflated_too() -> None:
    apps = ChangingApps([conflated(LONG_MS)])
    async with realtime_server(apps) as server, connected(server.port) as ana, connected(server.port) as ben:
        for client in (ana, ben):
            await client.subscribe("private-room")
        for number in range(3):
            ana.send("client-cursor", number, channel="private-room")
        ana.send("client-typing", True, channel="private-room")
        assert await ana.is_quiet()
        apps.become(conflated(None))
        got = [await ben.receive() for _ in range(3)]
        assert [(each["event"], each["data"]) for each in got] == [
            ("client-cursor", 0), ("client-cursor", 2), ("client-typing", True),
        ]  # fmt: skip
        assert await ana.is_quiet()


@pytest.mark.parametrize("channel", ["prices", "cache-prices"])
async def test_a_newcomer_gets_nothing_of_before_but_what_a_cache_channel_keeps(channel: str) -> None:
    apps = ChangingApps([conflated(LONG_MS)])
    async with realtime_server(apps) as server, connected(server.port) as old, connected(server.port) as new:
        await old.subscribe(channel)
        if channel == "cache-prices":
            await old.expect("pusher:cache_miss")
        for number in range(3):
            await publish(server.port, number, channel)
        assert await prices(old, 1) == [0]
        await new.subscribe(channel)
        if channel == "cache-prices":
            assert await prices(new, 1) == [2]
        apps.become(conflated(None))
        assert await prices(old, 1) == [2]
        assert await new.is_quiet()


async def test_the_servers_own_channels_are_not_conflated() -> None:
    async with realtime_server(conflated(LONG_MS)) as server, connected(server.port) as client:
        await client.sign_in("7")
        for number in range(3):
            await publish(server.port, number, "#server-to-user-7")
        assert await prices(client, 3) == [0, 1, 2]


# Sessions


async def resumed(client: Client, channel: str = "prices") -> list[int]:
    await client.subscribe(channel)
    answer = await client.expect("pusher:resume_success")
    return await prices(client, json.loads(answer["data"])["replayed"])


async def answer_barrier(client: Client) -> None:
    while True:
        opcode, payload = await client.frame()
        if opcode == 1 and json.loads(payload)["event"] == "pusher:ping":
            client.send("pusher:pong", {})
            return


def confirmed(server: RealtimeServer) -> list[int]:
    followers = server.node.resumption._followers.values()
    return [position for each in followers for position in each.values()]


async def test_what_waited_when_a_client_was_lost_is_replayed_once_and_conflated() -> None:
    apps = ChangingApps([conflated(LONG_MS)])
    async with realtime_server(apps) as server, connected(server.port) as other:
        await other.subscribe("prices")
        async with connected(server.port, session=TOKEN) as client:
            await client.subscribe("prices")
            before = confirmed(server)
            await publish(server.port, 0)
            assert await prices(client, 1) == [0]
            for number in range(1, 4):
                await publish(server.port, number)
            await answer_barrier(client)
            await eventually(lambda: confirmed(server) != before)
        async with connected(server.port, session=TOKEN) as client:
            assert await resumed(client) == [3]
            apps.become(conflated(None))
            await publish(server.port, 4)
            assert await prices(client, 1) == [4]
            assert await client.is_quiet()


async def test_a_replaced_event_counts_as_delivered_once_the_later_one_is() -> None:
    async with receiver() as target:
        app = conflated(SHORT_MS, webhooks=(WebhookTarget(target.url, events=("event_delivered",)),))
        async with realtime_server(app) as server, connected(server.port, session=TOKEN) as client:
            data = '{"user_id":"7"}'
            auth = sign_channel("app-key", "app-secret", client.socket_id, "private-prices", data)
            client.send("pusher:subscribe", {"channel": "private-prices", "auth": auth, "channel_data": data})
            await client.expect("pusher_internal:subscription_succeeded")
            names = [f"m{number}" for number in range(20)]
            batch = [
                {"name": "price", "channel": "private-prices", "data": str(number), "id": name, "receipts": True}
                for number, name in enumerate(names)
            ]
            for start in (0, 10):
                body = json.dumps({"batch": batch[start : start + 10]}).encode()
                assert (await call(server.port, "POST", f"/apps/{APP_ID}/batch_events", body)).status_code == 200
            await prices_until(client, 19)
            assert server.metrics.conflated > 0
            subscribers = server.node.hub.channel(APP_ID, "private-prices")
            assert subscribers is not None
            while confirmed(server) != [subscribers.position]:
                await answer_barrier(client)
                await eventually(
                    lambda: not any(each.client_session and each.client_session.barriers for each in server.node.hub)
                )
            await eventually(lambda: len(target.events) == 20)
        assert sorted(event["id"] for event in target.events) == sorted(names)


# Nodes, and the end


async def test_each_node_conflates_for_its_own_subscribers() -> None:
    policies = json.dumps([{"pattern": "**", "conflate_ms": SHORT_MS}])
    async with cluster(2, reverb_app_channels=policies) as nodes:
        one, two = nodes.nodes
        async with connected(one.port) as ana, connected(two.port) as ben:
            for client in (ana, ben):
                await client.subscribe("prices")
            await publish_all(one.port, range(100))
            for client in (ana, ben):
                got = await prices_until(client, 99)
                assert got[0] == 0
                assert got == sorted(set(got))
        assert one.metrics.conflated > 0
        assert two.metrics.conflated > 0


async def test_a_server_that_stops_leaves_no_timer() -> None:
    async with realtime_server(conflated(LONG_MS)) as server, connected(server.port) as client:
        await client.subscribe("prices")
        for number in range(3):
            await publish(server.port, number)
        assert waiting(server) == 1
        await server.stop()
        assert waiting(server) == 0
