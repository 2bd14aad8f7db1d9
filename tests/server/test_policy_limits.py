"""What policies limit: subscribers, sizes, client events, counts and webhooks of the channels that they match."""

from __future__ import annotations

import json
from collections.abc import Awaitable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from kit.changing_apps import ChangingApps
from kit.client import Client, connected
from kit.cluster import cluster
from kit.realtime import APP_ID, KEY, SECRET, an_app, call, realtime_server
from kit.receiver import receiver
from kit.reverb import reverb
from kit.simultaneous_joins import subscription
from kit.waiting import eventually, eventually_told
from smartlink.protocol.signing import sign_channel
from smartlink.server.apps.base import App, WebhookTarget
from smartlink.server.apps.policies import ChannelPolicy

TOKEN = "a-session-token-of-the-tests"
TWO_SUBSCRIBERS = '[{"pattern": "**", "max_subscribers": 2}]'


def with_policy(pattern: str, /, app: dict[str, Any] | None = None, **fields: Any) -> App:
    return an_app(channels=(ChannelPolicy(pattern, **fields),), **(app or {}))


async def publish(port: int, channel: str, data: str = "x", **more: Any) -> Any:
    body = json.dumps({"name": "news", "channel": channel, "data": data} | more).encode()
    return await call(port, "POST", f"/apps/{APP_ID}/events", body)


async def answer_to_subscribe(client: Client, channel: str) -> dict[str, Any]:
    client.send("pusher:subscribe", {"channel": channel})
    return await client.receive()


async def refusal(client: Client) -> dict[str, Any]:
    """The data of a refused client event."""
    error: dict[str, Any] = await client.expect("pusher:error")
    assert error["data"]["code"] == 4301
    return error


# max_subscribers


async def test_one_subscriber_too_many_is_refused_with_the_reason_and_a_free_place_is_taken_again() -> None:
    async with (
        realtime_server(with_policy("room.*", max_subscribers=2)) as server,
        connected(server.port) as one,
        connected(server.port) as two,
        connected(server.port) as three,
    ):
        await one.subscribe("room.1")
        await one.subscribe("room.1")
        await two.subscribe("room.1")
        refused = await answer_to_subscribe(three, "room.1")
        assert refused["event"] == "pusher:subscription_error"
        assert refused["data"] == {
            "type": "LimitReached", "error": "room.1 has 2 subscribers, the most it may have", "status": 403,
        }  # fmt: skip
        await three.subscribe("room.2")
        await three.subscribe("other")

        two.send("pusher:unsubscribe", {"channel": "room.1"})
        assert await two.is_quiet()
        await three.subscribe("room.1")


async def test_subscribers_are_counted_over_all_nodes_also_when_they_come_at_once() -> None:
    async with cluster(2, reverb_app_channels=TWO_SUBSCRIBERS) as nodes, AsyncExitStack() as stack:
        ports = [node.port for node in nodes.nodes] * 4
        clients = [await stack.enter_async_context(connected(port)) for port in ports]
        for client in clients:
            client.send("pusher:subscribe", {"channel": "chat"})
        answers = [await client.receive() for client in clients]

        assert sorted(answer["event"] for answer in answers) == (
            ["pusher:subscription_error"] * 6 + ["pusher_internal:subscription_succeeded"] * 2
        )
        assert (await nodes.presence.count(APP_ID, "chat")).subscriptions == 2


async def test_subscribers_are_counted_over_all_workers(tmp_path: Path) -> None:
    with reverb(tmp_path, "--workers", "2", reverb_app_channels=TWO_SUBSCRIBERS) as server:
        async with AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(connected(server.port)) for _ in range(12)]
            answers = [await answer_to_subscribe(client, "chat") for client in clients]
        events = [answer["event"] for answer in answers]
        assert events == ["pusher_internal:subscription_succeeded"] * 2 + ["pusher:subscription_error"] * 10


async def test_members_refused_because_a_channel_is_full_are_not_announced() -> None:
    async with (
        realtime_server(with_policy("presence-*", max_subscribers=1)) as server,
        connected(server.port) as ana,
        connected(server.port) as ben,
    ):
        await ana.subscribe("presence-room", {"user_id": "1"})
        ben.send("pusher:subscribe", subscription(ben, "presence-room", "2"))
        assert (await ben.receive())["event"] == "pusher:subscription_error"
        assert await ana.is_quiet()


async def test_a_lost_member_that_comes_back_in_time_has_kept_its_place() -> None:
    app = with_policy("presence-*", max_subscribers=1, presence_grace_s=300)
    async with realtime_server(app) as server:
        async with connected(server.port, session=TOKEN) as client:
            await client.subscribe("presence-room", {"user_id": "1"})
        await eventually(lambda: len(server.node.hub) == 0)
        async with connected(server.port) as other:
            other.send("pusher:subscribe", subscription(other, "presence-room", "2"))
            assert (await other.receive())["event"] == "pusher:subscription_error"
        async with connected(server.port, session=TOKEN) as client:
            await client.subscribe("presence-room", {"user_id": "1"})


# max_event_bytes


async def test_an_event_larger_than_its_channel_allows_is_413_and_reaches_no_channel() -> None:
    async with realtime_server(with_policy("small.*", max_event_bytes=10)) as server, connected(server.port) as client:
        await client.subscribe("small.1")
        await client.subscribe("any")
        assert (await publish(server.port, "small.1", "x" * 10)).status_code == 200
        answer = await publish(server.port, "small.1", "ž" * 6)
        assert answer.status_code == 413
        assert "12 bytes, more than the 10 it may have on small.1" in answer.text
        body = json.dumps({"name": "news", "channels": ["any", "small.1"], "data": "x" * 11}).encode()
        assert (await call(server.port, "POST", f"/apps/{APP_ID}/events", body)).status_code == 413
        batch = {"batch": [{"name": "news", "channel": name, "data": "x" * 11} for name in ("any", "small.1")]}
        path = f"/apps/{APP_ID}/batch_events"
        assert (await call(server.port, "POST", path, json.dumps(batch).encode())).status_code == 413

        assert (await client.receive())["data"] == "x" * 10
        assert await client.is_quiet()


async def test_a_channel_may_allow_larger_events_than_its_app() -> None:
    async with realtime_server(with_policy("large", max_event_bytes=20_000)) as server:
        assert (await publish(server.port, "large", "x" * 20_000)).status_code == 200
        assert (await publish(server.port, "large", "x" * 20_001)).status_code == 413
        assert (await publish(server.port, "other", "x" * 20_000)).status_code == 413


async def test_a_client_event_larger_than_its_channel_allows_is_refused() -> None:
    async with (
        realtime_server(with_policy("private-small", max_event_bytes=10)) as server,
        connected(server.port) as ana,
        connected(server.port) as ben,
    ):
        for client in (ana, ben):
            await client.subscribe("private-small")
        ana.send("client-x", "x" * 9, channel="private-small")
        error = await refusal(ana)
        assert error["channel"] == "private-small"
        assert "11 bytes, more than the 10" in error["data"]["message"]
        ana.send("client-x", "x" * 8, channel="private-small")
        assert (await ben.receive())["data"] == "x" * 8


# client_events


@pytest.mark.parametrize(
    ("app", "policy", "channel", "is_taken"),
    [
        ({}, "none", "private-a", False),
        ({}, "members", "private-a", True),
        ({}, "members", "public-a", False),
        ({}, "all", "public-a", True),
        ({}, "all", "private-a", True),
        ({}, None, "public-a", False),
        ({"accepts_client_events": False}, "members", "private-a", True),
        ({"accepts_client_events": False}, None, "private-a", False),
        ({"accepts_client_events": False}, "all", "public-a", True),
        ({"accepts_public_client_events": True}, "members", "public-a", False),
        ({"accepts_public_client_events": True}, None, "public-a", True),
        ({}, "all", "private-encrypted-a", False),
    ],
)
async def test_a_policy_says_where_clients_may_send_events(
    app: dict[str, Any], policy: str | None, channel: str, *, is_taken: bool
) -> None:
    async with (
        realtime_server(with_policy("**", app, client_events=policy)) as server,
        connected(server.port) as ana,
        connected(server.port) as ben,
    ):
        for client in (ana, ben):
            await client.subscribe(channel)
        ana.send("client-x", "hello", channel=channel)
        if is_taken:
            assert (await ben.receive())["data"] == "hello"
        else:
            assert (await refusal(ana))["channel"] == channel
            assert await ben.is_quiet()


async def test_a_sender_of_client_events_is_subscribed_whatever_the_policy() -> None:
    async with realtime_server(with_policy("**", client_events="all")) as server, connected(server.port) as client:
        client.send("client-x", "hello", channel="chat")
        assert "Subscribe to chat" in (await refusal(client))["data"]["message"]


async def test_client_events_have_the_rate_of_their_policy_and_others_keep_the_apps() -> None:
    app = with_policy("private-slow.*", {"client_events_per_s": 3}, client_events_per_s=1)
    channels = ("private-slow.1", "private-slow.2", "private-a")
    async with realtime_server(app) as server, connected(server.port) as ana, connected(server.port) as ben:
        for client in (ana, ben):
            for channel in channels:
                await client.subscribe(channel)
        for number in range(30):
            ana.send("client-x", "1", channel=channels[number % 2])
        assert "More than 1 client events a second" in (await refusal(ana))["data"]["message"]
        assert (await ben.receive())["channel"] == "private-slow.1"
    async with realtime_server(app) as server, connected(server.port) as ana:
        await ana.subscribe("private-a")
        for _ in range(60):
            ana.send("client-x", "1", channel="private-a")
        assert "More than 3 client events a second" in (await refusal(ana))["data"]["message"]


# subscription_count


@pytest.mark.parametrize(("of_app", "of_policy", "is_sent"), [(True, False, False), (False, True, True)])
async def test_a_policy_says_whether_subscribers_are_sent_their_count(
    *, of_app: bool, of_policy: bool, is_sent: bool
) -> None:
    app = with_policy("one", {"sends_subscription_counts": of_app}, subscription_count=of_policy)
    async with realtime_server(app) as server, connected(server.port) as client:
        for channel, expects_count in (("one", is_sent), ("two", of_app)):
            await client.subscribe(channel)
            if expects_count:
                count = await client.expect("pusher_internal:subscription_count")
                assert (count["channel"], json.loads(count["data"])) == (channel, {"subscription_count": 1})
            assert await client.is_quiet()


# webhooks


async def test_a_channel_without_webhooks_is_in_none_of_them() -> None:
    async with receiver() as target:
        app = with_policy(
            "**quiet**",
            {"webhooks": (WebhookTarget(target.url),), "sends_subscription_counts": True},
            webhooks=False,
        )
        async with realtime_server(app, reverb_webhook_grace=0.0) as server:
            for channel in ("cache-quiet", "private-quiet", "presence-quiet", "private-loud"):
                async with connected(server.port, session=TOKEN) as client:
                    await client.subscribe(channel, {"user_id": "7"} if channel.startswith("presence-") else None)
                    if channel == "cache-quiet":
                        await client.expect("pusher:cache_miss")
                    else:
                        client.send("client-x", "hello", channel=channel)
                    assert (await publish(server.port, channel, id=channel, receipts=True)).status_code == 200
                await eventually(lambda: len(server.node.hub) == 0)
            await eventually(lambda: any(event["name"] == "channel_vacated" for event in target.events))

        assert {event["channel"] for event in target.events} == {"private-loud"}
        names = {"channel_occupied", "subscription_count", "client_event", "channel_vacated"}
        assert {event["name"] for event in target.events} >= names


async def test_no_worker_sends_webhooks_of_a_channel_without(tmp_path: Path) -> None:
    async with receiver() as target:
        settings = {
            "reverb_app_channels": '[{"pattern": "quiet", "webhooks": false}]',
            "reverb_webhook_url": target.url,
            "reverb_webhook_allow_private": True,
            "reverb_webhook_allow_http": True,
            "reverb_webhook_grace": 0.0,
        }
        with reverb(tmp_path, "--workers", "2", **settings) as server:
            async with AsyncExitStack() as stack:
                clients = [await stack.enter_async_context(connected(server.port)) for _ in range(8)]
                for client in clients:
                    await client.subscribe("quiet")
                await clients[0].subscribe("loud")
            await eventually(lambda: any(event["name"] == "channel_vacated" for event in target.events))
        assert {event["channel"] for event in target.events} == {"loud"}


# Changes while the server runs


async def test_new_policies_apply_at_once_to_clients_that_are_connected() -> None:
    async with receiver() as target:
        hooks = {"webhooks": (WebhookTarget(target.url, events=("client_event",)),)}
        apps = ChangingApps([an_app(**hooks)])
        async with realtime_server(apps) as server, connected(server.port) as ana, connected(server.port) as ben:
            for client in (ana, ben):
                await client.subscribe("private-a")
            ana.send("client-x", "1", channel="private-a")
            assert (await ben.receive())["data"] == "1"
            await eventually(lambda: len(target.events) == 1)

            limits = {"max_subscribers": 1, "max_event_bytes": 3, "webhooks": False, "subscription_count": True}
            apps.become(with_policy("private-a", hooks, **limits))
            ana.send("client-x", "2", channel="private-a")
            assert (await ben.receive())["data"] == "2"
            assert (await publish(server.port, "private-a", "large")).status_code == 413
            async with connected(server.port) as cem:
                auth = sign_channel(KEY, SECRET, cem.socket_id, "private-a")
                cem.send("pusher:subscribe", {"channel": "private-a", "auth": auth})
                assert (await cem.receive())["data"]["type"] == "LimitReached"
            # Who was there before stays, and coming back counts as new.
            ben.send("pusher:unsubscribe", {"channel": "private-a"})
            assert await ben.is_quiet()
            count = await ana.expect("pusher_internal:subscription_count")
            assert json.loads(count["data"]) == {"subscription_count": 1}

            apps.become(with_policy("private-a", hooks, client_events="none"))
            ana.send("client-x", "3", channel="private-a")
            assert "not allowed on this channel" in (await refusal(ana))["data"]["message"]
            assert (await publish(server.port, "private-a", "large")).status_code == 200
            apps.become(an_app(**hooks))
            ana.send("client-x", "4", channel="private-a")
            await eventually(lambda: len(target.events) == 2)
        assert [json.loads(event["data"]) for event in target.events] == ["1", "4"]


async def test_policies_of_a_file_are_read_again_when_it_changes_and_kept_when_they_are_wrong(tmp_path: Path) -> None:
    file = tmp_path / "apps.toml"
    app = f'[[apps]]\nid = "{APP_ID}"\nkey = "{KEY}"\nsecret = "{SECRET}"\n'
    policy = '[[apps.channels]]\npattern = "**"\nmax_event_bytes = '
    file.write_text(f"{app}{policy}3")

    async def status(size: int) -> int:
        return int((await publish(server.port, "chat", "x" * size)).status_code)

    async with realtime_server(reverb_apps_file=file) as server:
        assert [await status(3), await status(4)] == [200, 413]
        file.write_text(f"{app}{policy}5")
        server.reload()
        await eventually_told(lambda: is_status(status(5), 200))
        file.write_text(f"{app}{policy}-5")
        server.reload()
        assert [await status(5), await status(6)] == [200, 413]
        file.write_text(app)
        await eventually_told(lambda: is_status(status(6), 200))


async def is_status(asked: Awaitable[int], expected: int) -> bool:
    return await asked == expected
