"""Webhooks for client events, cache misses and counts; and what they never report."""

from __future__ import annotations

import json

from kit.client import connected
from kit.realtime import an_app, realtime_server
from kit.receiver import receiver
from kit.waiting import eventually
from smartlink.server.apps.base import WebhookTarget


async def test_client_events_are_posted_with_their_sender() -> None:
    async with (
        receiver() as target,
        realtime_server(an_app(webhooks=(WebhookTarget(target.url, ("client_event",)),))) as server,
        connected(server.port) as ana,
    ):
        await ana.subscribe("presence-a", {"user_id": "1"})
        await ana.subscribe("private-a")
        ana.send("client-x", {"a": [1, "ž"]}, channel="presence-a", user_id="2")
        ana.send("client-y", "text", channel="private-a")
        await eventually(lambda: len(target.events) == 2)

        first, second = target.events
        assert json.loads(first.pop("data")) == {"a": [1, "ž"]}
        assert json.loads(second.pop("data")) == "text"
        common = {"name": "client_event", "socket_id": ana.socket_id}
        assert first == common | {"channel": "presence-a", "event": "client-x", "user_id": "1"}
        assert second == common | {"channel": "private-a", "event": "client-y"}


async def test_cache_misses_and_counts_are_posted() -> None:
    wanted = ("cache_miss", "subscription_count")
    async with (
        receiver() as target,
        realtime_server(
            an_app(webhooks=(WebhookTarget(target.url, wanted),), sends_subscription_counts=True)
        ) as server,
        connected(server.port) as one,
        connected(server.port) as two,
    ):
        await one.subscribe("cache-a")
        await two.subscribe("cache-a")
        two.send("pusher:unsubscribe", {"channel": "cache-a"})
        one.send("pusher:unsubscribe", {"channel": "cache-a"})
        # Of several misses of one channel within seconds the first is told.
        await eventually(lambda: len(target.events) == 5)

        assert target.events[0] == {"name": "cache_miss", "channel": "cache-a"}
        counts = [event["subscription_count"] for event in target.events if event["name"] == "subscription_count"]
        assert counts == [1, 2, 1, 0]


async def test_internal_channels_are_never_posted() -> None:
    async with (
        receiver() as target,
        realtime_server(
            an_app(webhooks=(WebhookTarget(target.url),), sends_subscription_counts=True), reverb_webhook_grace=0.0
        ) as server,
    ):
        async with connected(server.port) as client:
            await client.sign_in("1", watchlist=["1", "2"])
            await client.expect("pusher_internal:watchlist_events")
            await client.subscribe("#server-to-user-1")
        async with connected(server.port) as client:
            await client.subscribe("last")
            await eventually(lambda: len(target.events) >= 4)

        assert {event.get("channel", event["name"]) for event in target.events} == {
            "last", "user_online", "user_offline",
        }  # fmt: skip


async def test_a_users_first_sign_in_and_last_disconnect_are_posted() -> None:
    async with (
        receiver() as all_of_it,
        receiver() as named,
        receiver() as rooms,
        realtime_server(
            an_app(
                webhooks=(
                    WebhookTarget(all_of_it.url),
                    WebhookTarget(named.url, ("user_online", "user_offline"), ("presence-",)),
                    WebhookTarget(rooms.url, (), ("presence-",)),
                )
            ),
            reverb_webhook_grace=0.2,
        ) as server,
    ):
        async with connected(server.port) as tab:
            async with connected(server.port) as client:
                await client.sign_in("ž 1")
                await tab.sign_in("ž 1")
                await client.subscribe("presence-a")
            await eventually(lambda: "member_removed" in rooms.names)
            assert named.events == [{"name": "user_online", "user_id": "ž 1"}]
        await eventually(lambda: len(named.events) == 2)

        assert named.events[1] == {"name": "user_offline", "user_id": "ž 1"}
        await eventually(lambda: "user_offline" in all_of_it.names)
        assert all_of_it.names.count("user_online") == all_of_it.names.count("user_offline") == 1
        assert set(rooms.names) == {"channel_occupied", "channel_vacated", "member_added", "member_removed"}


async def test_a_user_who_returns_within_the_grace_period_was_never_offline() -> None:
    async with (
        receiver() as target,
        realtime_server(
            an_app(webhooks=(WebhookTarget(target.url, ("user_online", "user_offline")),)), reverb_webhook_grace=0.5
        ) as server,
    ):
        for _ in range(3):
            async with connected(server.port) as client:
                await client.sign_in("1")
        async with connected(server.port) as other:
            await other.sign_in("2")
            await eventually(lambda: {"name": "user_offline", "user_id": "1"} in target.events)

        assert [event["name"] for event in target.events if event["user_id"] == "1"] == ["user_online", "user_offline"]
