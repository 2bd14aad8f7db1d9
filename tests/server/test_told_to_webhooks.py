"""What else webhooks tell of: client events, cache misses, counts; and what they never do."""

from __future__ import annotations

import json

from kit.client import connected
from kit.realtime import an_app, realtime_server
from kit.receiver import receiver
from kit.waiting import eventually
from smartlink.server.apps.base import Webhook


async def test_client_events_are_told_with_who_sent_them() -> None:
    async with (
        receiver() as target,
        realtime_server(an_app(webhooks=(Webhook(target.url, ("client_event",)),))) as server,
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


async def test_cache_misses_and_counts_are_told() -> None:
    wanted = ("cache_miss", "subscription_count")
    async with (
        receiver() as target,
        realtime_server(an_app(webhooks=(Webhook(target.url, wanted),), sends_subscription_counts=True)) as server,
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


async def test_internal_channels_are_never_told_of() -> None:
    async with (
        receiver() as target,
        realtime_server(
            an_app(webhooks=(Webhook(target.url),), sends_subscription_counts=True), reverb_webhook_grace=0.0
        ) as server,
    ):
        async with connected(server.port) as client:
            await client.sign_in("1", watchlist=["1", "2"])
            await client.expect("pusher_internal:watchlist_events")
            await client.subscribe("#server-to-user-1")
        async with connected(server.port) as client:
            await client.subscribe("last")
            await eventually(lambda: len(target.events) >= 2)

        assert {event["channel"] for event in target.events} == {"last"}
