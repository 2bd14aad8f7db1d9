"""The operator API: what it tells of a server, its live console, and its actions."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from kit.client import connected
from kit.operating import OperatorClient, operated
from kit.realtime import SECRET, an_app, call, realtime_server
from kit.receiver import receiver
from kit.waiting import eventually
from kit.xhr import XhrClient
from smartlink.server.apps.policies import ChannelPolicy
from smartlink.server.run.lifecycle import RealtimeServer


@pytest.fixture
async def api(server: RealtimeServer) -> AsyncIterator[OperatorClient]:
    async with operated(server) as client:
        yield client


async def publish(server: RealtimeServer, channel: str, name: str = "placed", data: str = "{}") -> None:
    body = json.dumps({"name": name, "channel": channel, "data": data}).encode()
    answer = await call(server.port, "POST", "/apps/1001/events", body)
    assert answer.status_code == 200


async def until(lines: AsyncIterator[dict[str, Any]], kind: str, **fields: str) -> dict[str, Any]:
    """The next entry of a kind with these fields."""
    async for entry in lines:
        if entry["kind"] == kind and all(entry.get(name) == value for name, value in fields.items()):
            return entry
    raise AssertionError("the console ended")


async def test_the_overview_counts_what_is_there(server: RealtimeServer, api: OperatorClient) -> None:
    async with connected(server.port) as ana, connected(server.port):
        await ana.subscribe("room")

        overview = await api.get("overview")

    [process] = overview["processes"]
    assert (process["connections"], process["is_ready"], process["redis"]) == (2, True, "off")
    assert overview["apps"] == [{"connections": 2, "channels": 1, "subscriptions": 1, "id": "1001"}]
    assert (overview["findings"], overview["missing"]) == ([], 0)


async def test_connections_are_listed_in_pages(server: RealtimeServer, api: OperatorClient) -> None:
    async with connected(server.port) as ana, connected(server.port) as ben, connected(server.port) as cem:
        expected = sorted(client.socket_id for client in (ana, ben, cem))

        first = await api.get("connections", limit="2")
        second = await api.get("connections", limit="2", after=first["next"])

    assert [row["socket_id"] for row in first["rows"] + second["rows"]] == expected
    assert second["next"] == ""


async def test_a_channel_shows_its_subscribers_and_members(server: RealtimeServer, api: OperatorClient) -> None:
    async with connected(server.port) as ana, connected(server.port) as ben, connected(server.port):
        await ana.subscribe("presence-room", {"user_id": "7"})
        await ben.subscribe("presence-room", {"user_id": "8"})

        shown = await api.get("channel", channel="presence-room")
        page = await api.get("connections", channel="presence-room")
        channels = await api.get("channels", text="room")

    assert shown["channel"] == {"name": "presence-room", "kind": "presence", "subscriptions": 2, "users": 2}
    assert {row["user_id"] for row in page["rows"]} == {"7", "8"}
    assert [row["name"] for row in channels["rows"]] == ["presence-room"]


async def test_a_connection_shows_client_address_and_channels(server: RealtimeServer, api: OperatorClient) -> None:
    async with connected(server.port, query="protocol=7&client=js&version=8.4.0") as ana:
        await ana.subscribe("private-a")

        shown = await api.get("connection", socket=ana.socket_id)

    assert (shown["client"], shown["address"], shown["transport"]) == ("js 8.4.0", "127.0.0.1", "websocket")
    assert (shown["channel_names"], shown["backlog_bytes"], shown["signed_in_as"]) == (["private-a"], 0, None)
    assert shown["is_resumable"] is False
    assert (await api.request("GET", "connection", socket="1.1")).status_code == 404


async def test_a_client_over_http_is_shown_as_such(server: RealtimeServer, api: OperatorClient) -> None:
    async with XhrClient(server.port) as cem:
        await cem.subscribe("room")

        [row] = (await api.get("connections"))["rows"]

    assert row["transport"] == "http"


async def test_the_console_shows_what_happens(server: RealtimeServer, api: OperatorClient) -> None:
    async with api.console() as lines:
        async with connected(server.port) as ana:
            await until(lines, "connect", socket_id=ana.socket_id)
            await ana.subscribe("private-room")
            await until(lines, "subscribe", channel="private-room")
            await publish(server, "private-room", data='{"id":7}')
            published = await until(lines, "publish")
            ana.send("client-typing", {"by": "ana"}, channel="private-room")
            typed = await until(lines, "client_event")
            ana.send("pusher:subscribe", {"channel": "private-x", "auth": "app-key:forged"})
            refused = await until(lines, "refused")
            ana.send("pusher:unsubscribe", {"channel": "private-room"})
            await until(lines, "unsubscribe")
        await until(lines, "disconnect", socket_id=ana.socket_id)
        await call(server.port, "GET", "/apps/1001/channels", secret="wrong")
        failed = await until(lines, "error")

    assert (published["event"], published["data"], published["channel"]) == ("placed", '{"id":7}', "private-room")
    assert (typed["event"], typed["socket_id"]) == ("client-typing", ana.socket_id)
    assert (refused["channel"], refused["why"].startswith("Invalid signature")) == ("private-x", True)
    assert "401" in failed["why"]


async def test_the_console_shows_only_what_its_filter_wants(server: RealtimeServer, api: OperatorClient) -> None:
    async with api.console(channel="orders.*", event="pl*") as lines:
        await publish(server, "chat")
        await publish(server, "orders.1", "shipped")
        await publish(server, "orders.2", "placed")

        entry = await anext(lines)

    assert (entry["channel"], entry["event"]) == ("orders.2", "placed")


async def test_the_frames_of_one_connection_are_shown_without_secrets(
    server: RealtimeServer, api: OperatorClient
) -> None:
    async with connected(server.port) as ana, api.console(socket=ana.socket_id) as lines:
        await ana.subscribe("private-room")
        received = await until(lines, "received")
        await publish(server, "private-room", "placed", '{"id":7}')
        sent = await until(lines, "sent", event="placed")

    assert received["event"] == "pusher:subscribe"
    assert "app-key:" not in received["data"]
    assert sent["data"] == '{"id":7}'


async def test_nothing_is_noted_once_the_last_console_has_closed(server: RealtimeServer, api: OperatorClient) -> None:
    async with api.console():
        assert server.node.feed.watches

    await eventually(lambda: not server.node.feed.watches)


async def test_a_test_event_reaches_the_subscribers_and_is_audited(server: RealtimeServer, api: OperatorClient) -> None:
    async with connected(server.port) as ana:
        await ana.subscribe("room")

        answer = await api.request("POST", "events", body={"channel": "room", "event": "hello", "data": '{"a":1}'})
        event = await ana.expect("hello")

    assert (answer.status_code, answer.json()) == (200, {"subscriptions": 1})
    assert event["channel"] == "room"
    [action] = await api.get("audit")
    assert (action["action"], action["target"], action["outcome"]) == ("send event", "hello on room", "done: 1")


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        ({"channel": "a b", "event": "e", "data": ""}, "not a channel name"),
        ({"channel": "private-encrypted-a", "event": "e", "data": ""}, "encrypted"),
        ({"channel": "a", "event": "pusher:error", "data": ""}, "reserved"),
        ({"channel": "a", "event": "e\n", "data": ""}, "control characters"),
        ({"channel": "a", "event": "e", "data": "x" * 20_000}, "more than"),
        ({"channel": "a", "event": "e"}, "Invalid body"),
    ],
)
async def test_a_faulty_test_event_is_refused_and_audited(
    api: OperatorClient, event: dict[str, str], reason: str
) -> None:
    answer = await api.request("POST", "events", body=event)

    assert answer.status_code == 400
    assert reason in answer.json()["error"]
    audited = [action["outcome"] for action in await api.get("audit")]
    assert audited == ([] if "data" not in event else [f"refused: {answer.json()['error']}"])


async def test_a_cache_channel_shows_its_last_event(server: RealtimeServer, api: OperatorClient) -> None:
    for number in range(3):
        await publish(server, "cache-prices", data=str(number))

    history = (await api.get("channel", channel="cache-prices"))["history"]

    assert [json.loads(entry["frame"])["data"] for entry in history] == ["2"]


async def test_a_channel_shows_the_events_that_are_kept_for_sessions(
    server: RealtimeServer, api: OperatorClient
) -> None:
    async with connected(server.port, session="a-session-token-of-the-tests") as client:
        await client.subscribe("chat")
        for number in range(25):
            await publish(server, "chat", data=str(number))

        history = (await api.get("channel", channel="chat"))["history"]

        assert [json.loads(entry["frame"])["data"] for entry in history] == [str(n) for n in range(24, 4, -1)]


async def test_explain_says_why_a_subscription_was_refused(server: RealtimeServer, api: OperatorClient) -> None:
    async with connected(server.port) as ana:
        ana.send("pusher:subscribe", {"channel": "private-x", "auth": "app-key:forged"})
        await ana.expect("pusher:subscription_error")

        channel = await api.get("explain", subject="private-x")
        connection = await api.get("explain", subject=ana.socket_id)

    assert "Nobody is subscribed: events published to it reach nobody." in channel["facts"]
    assert [problem["why"] for problem in channel["problems"]] == [problem["why"] for problem in connection["problems"]]
    assert channel["problems"][0]["why"].startswith("Invalid signature")
    assert connection["facts"][0].startswith("It is connected since")


async def test_explain_and_the_list_of_apps_say_which_policy_holds() -> None:
    policies = (
        ChannelPolicy("prices.*", conflate_ms=250, client_events="all", client_events_per_s=3),
        ChannelPolicy("private-**", client_events="none"),
        ChannelPolicy("news", webhooks=False),
    )
    async with realtime_server(an_app(channels=policies)) as server, operated(server) as api:
        facts = {
            name: (await api.get("explain", subject=name))["facts"] for name in ("prices.eur", "private-x", "news", "x")
        }
        [app] = await api.get("apps")

    first = "sends each subscriber at most one event per name in 250 ms"
    assert f"The policy of prices.* holds: it {first}, takes client events" in facts["prices.eur"][2]
    assert facts["prices.eur"][3] == "It takes client events, 3 a second from each connection."
    assert facts["private-x"][2:] == [
        "The policy of private-** holds, as prices.* does not match: it takes no client events.",
        "It takes no client events.",
    ]
    assert facts["news"][2] == "The policy of news holds, as 2 before it do not match: it sends no webhooks."
    assert facts["x"][2] == "None of the app's 3 policies matches it: what the app says holds."
    assert app["policies"][1] == {"pattern": "private-**", "says": "takes no client events"}
    assert app["channels"][2]["webhooks"] is False


async def test_explain_says_how_a_connection_ended(server: RealtimeServer, api: OperatorClient) -> None:
    async with connected(server.port) as ana:
        ana.send("pusher:signin", {"auth": "app-key:forged", "user_data": "{}"})
        await ana.closed()

    explained = await api.get("explain", subject=ana.socket_id)

    assert explained["facts"][0].startswith("It ended: 4009: Invalid signature")


async def test_explain_finds_a_user_by_their_connections(server: RealtimeServer, api: OperatorClient) -> None:
    async with connected(server.port) as ana:
        await ana.subscribe("presence-room", {"user_id": "ana@example.com"})

        explained = await api.get("explain", subject="ana@example.com")

    assert (explained["kind"], explained["is_known"]) == ("user", True)
    assert explained["facts"][0] == "The user has 1 connection."


async def test_apps_are_shown_without_their_secrets() -> None:
    settings = {"reverb_webhook_url": "https://example.com/hook?token=t"}
    async with realtime_server(**settings) as server, operated(server) as api:
        answer = await api.request("GET", "apps")

    [app] = answer.json()
    assert app["webhooks"][0]["address"] == "https://example.com/hook"
    assert SECRET not in answer.text


async def test_failed_webhooks_are_listed_replayed_and_deleted() -> None:
    async with receiver(then=500) as target:
        settings: dict[str, Any] = {"reverb_webhook_url": target.url, "reverb_webhook_retry_seconds": 1}
        settings["reverb_webhook_allow_http"] = True
        async with realtime_server(**settings) as server, operated(server) as api, connected(server.port) as ana:
            await ana.subscribe("room")
            await eventually(lambda: server.metrics.webhooks_failed)
            [batch] = await api.get("webhooks")
            assert batch["events"][0]["name"] == "channel_occupied"

            target.then = 200
            answer = await api.request("POST", "webhooks/retry", body={"id": batch["id"]})
            assert answer.json() == {"batches": 1}
            await eventually(lambda: target.names == ["channel_occupied"])
            assert await api.get("webhooks") == []
            missing = await api.request("POST", "webhooks/forget", body={"id": 99})
            assert missing.status_code == 404


async def test_charts_have_a_point_at_once(api: OperatorClient) -> None:
    charts = await api.get("charts", span="1h")

    assert charts["series"][0] == "connections"
    assert len(charts["points"]) >= 1
    assert len(charts["points"][0]) == len(charts["series"]) + 1
    assert (await api.request("GET", "charts", span="1y")).status_code == 400
