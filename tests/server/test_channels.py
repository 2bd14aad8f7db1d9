"""Subscribing, presence and client events, over real sockets."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kit.client import Client, connected
from kit.realtime import KEY, SECRET, call, realtime_server
from kit.waiting import eventually
from smartlink.protocol import encoding
from smartlink.protocol.signing import sign_channel, sign_user
from smartlink.server.cluster.brokers.base import Publication
from smartlink.server.run.lifecycle import RealtimeServer

ANA = {"user_id": "1", "user_info": {"name": "Ana"}}
BEN = {"user_id": "2", "user_info": {"name": "Ben"}}


async def publish(server: RealtimeServer, channel: str, name: str = "e", **more: Any) -> None:
    body = json.dumps({"name": name, "channel": channel, "data": "{}"} | more).encode()
    answer = await call(server.port, "POST", "/apps/1001/events", body)
    assert answer.status_code == 200, answer.text


async def test_an_event_reaches_every_subscriber_but_the_excluded_one(server: RealtimeServer) -> None:
    async with connected(server.port) as one, connected(server.port) as two, connected(server.port) as stranger:
        await one.subscribe("chat")
        await two.subscribe("chat")
        await publish(server, "chat", socket_id=one.socket_id)

        assert await two.receive() == {"event": "e", "channel": "chat", "data": "{}"}
        assert await one.is_quiet()
        assert await stranger.is_quiet()


async def test_order_is_kept_while_frames_are_joined(server: RealtimeServer) -> None:
    async with connected(server.port) as client:
        await client.subscribe("chat")
        for batch in range(20):
            events = [{"name": "n", "channel": "chat", "data": str(batch * 10 + i)} for i in range(10)]
            await call(server.port, "POST", "/apps/1001/batch_events", json.dumps({"batch": events}).encode())

        received = [int((await client.receive())["data"]) for _ in range(200)]
    assert received == list(range(200))


async def test_after_unsubscribing_nothing_arrives(server: RealtimeServer) -> None:
    async with connected(server.port) as client:
        await client.subscribe("chat")
        client.send("pusher:unsubscribe", {"channel": "chat"})
        assert await client.is_quiet()
        await publish(server, "chat")

        assert await client.is_quiet()
        assert (await call(server.port, "GET", "/apps/1001/channels")).json() == {"channels": {}}


async def test_subscribing_twice_is_harmless(server: RealtimeServer) -> None:
    async with connected(server.port) as client:
        await client.subscribe("chat")
        await client.subscribe("chat")
        await publish(server, "chat")

        assert (await client.receive())["event"] == "e"
        assert await client.is_quiet()


def wrong_auths(client: Client) -> dict[str, Any]:
    right = sign_channel(KEY, SECRET, client.socket_id, "private-a")
    return {
        "missing": None,
        "empty": "",
        "number": 1,
        "no colon": right.replace(":", ""),
        "other key": right.replace("app-key", "app-kez"),
        "63 digits": right[:-1],
        "65 digits": right + "0",
        "newline": right + "\n",
        "other socket": sign_channel(KEY, SECRET, "1.1", "private-a"),
        "other channel": sign_channel(KEY, SECRET, client.socket_id, "private-b"),
        "other secret": sign_channel(KEY, "guess", client.socket_id, "private-a"),
        "with data": sign_channel(KEY, SECRET, client.socket_id, "private-a", "{}"),
        "look-alike": right[:-1] + "０",
    }


async def test_no_wrong_signature_opens_a_private_channel(server: RealtimeServer) -> None:
    async with connected(server.port) as client:
        for name, auth in wrong_auths(client).items():
            client.send("pusher:subscribe", {"channel": "private-a", "auth": auth})

            answer = await client.receive()
            assert answer["event"] in ("pusher:subscription_error", "pusher:error"), name
        await publish(server, "private-a")
        assert await client.is_quiet()
        assert (await call(server.port, "GET", "/apps/1001/channels")).json() == {"channels": {}}


@pytest.mark.parametrize(
    "channel",
    [
        "",
        "a" * 201,
        "a b",
        "a/b",
        "ünï",
        "a\n",
        "*",
        "#user-1",
        "#watch-1",
        "#",
        "#server-to-user-",
        "\u0000",
        "private-a\u200b",
    ],
)
async def test_an_invalid_channel_name_is_refused(server: RealtimeServer, channel: str) -> None:
    async with connected(server.port) as client:
        client.send("pusher:subscribe", {"channel": channel})

        answer = await client.expect("pusher:subscription_error")
        assert answer["data"]["type"] == "InvalidChannel"


async def test_presence_lists_each_user_once_for_all_tabs(server: RealtimeServer) -> None:
    async with connected(server.port) as ana, connected(server.port) as ben:
        assert await ana.subscribe("presence-chat", ANA) == {
            "presence": {"count": 1, "ids": ["1"], "hash": {"1": {"name": "Ana"}}}
        }
        async with connected(server.port) as second_tab:
            state = await second_tab.subscribe("presence-chat", ANA)
            assert state["presence"]["count"] == 1
            await ben.subscribe("presence-chat", BEN)
            added = await ana.expect("pusher_internal:member_added")
            assert json.loads(added["data"]) == BEN
            await second_tab.expect("pusher_internal:member_added")
        assert await ben.is_quiet()
        users = await call(server.port, "GET", "/apps/1001/channels/presence-chat/users")
        assert users.json() == {"users": [{"id": "1"}, {"id": "2"}]}
        ana.send("pusher:unsubscribe", {"channel": "presence-chat"})

        removed = await ben.expect("pusher_internal:member_removed")
        assert json.loads(removed["data"]) == {"user_id": "1"}


async def test_a_member_whose_leave_was_announced_late_is_announced_again(server: RealtimeServer) -> None:
    def told(frame: bytes) -> None:
        """As by another node, which their former connection left when this one was already here."""
        server.node.deliver(Publication("1001", "presence-chat", frame))

    async with connected(server.port) as ana, connected(server.port) as ben:
        await ana.subscribe("presence-chat", ANA)
        await ben.subscribe("presence-chat", BEN)
        await ana.expect("pusher_internal:member_added")

        told(encoding.member_removed("presence-chat", "2"))
        await ana.expect("pusher_internal:member_removed")
        assert json.loads((await ana.expect("pusher_internal:member_added"))["data"]) == BEN

        told(encoding.member_removed("presence-chat", "2"))
        told(encoding.member_added("presence-chat", "2", b"{}"))
        await ana.expect("pusher_internal:member_removed")
        await ana.expect("pusher_internal:member_added")
        assert not any(server.node._members._rechecks._noted.values())

        told(encoding.member_removed("presence-chat", "2"))
        ben.send("pusher:unsubscribe", {"channel": "presence-chat"})
        await ana.expect("pusher_internal:member_removed")
        await ana.expect("pusher_internal:member_removed")
        await eventually(lambda: not server.node._members._rechecks)
        assert await ana.is_quiet()


@pytest.mark.parametrize(
    "channel_data",
    [None, "", "x", "[]", "{}", '{"user_id":null}', '{"user_id":""}', '{"user_id":true}', '{"user_id":{}}',
     '{"user_id":"%s"}' % ("u" * 129), '{"user_id":"1","user_info":"%s"}' % ("i" * 2_000), "[" * 3_000],
)  # fmt: skip
async def test_presence_without_a_member_is_refused(server: RealtimeServer, channel_data: str | None) -> None:
    async with connected(server.port) as client:
        auth = sign_channel(KEY, SECRET, client.socket_id, "presence-chat", channel_data)
        client.send("pusher:subscribe", {"channel": "presence-chat", "auth": auth, "channel_data": channel_data})

        answer = await client.expect("pusher:subscription_error")
        assert answer["data"]["status"] == 401
        assert (await call(server.port, "GET", "/apps/1001/channels")).json() == {"channels": {}}


async def test_a_client_event_reaches_the_others_with_the_true_user_id(server: RealtimeServer) -> None:
    async with connected(server.port) as ana, connected(server.port) as ben:
        await ana.subscribe("presence-chat", ANA)
        await ben.subscribe("presence-chat", BEN)
        await ana.expect("pusher_internal:member_added")
        ana.send("client-typing", {"a": [1, "ž"]}, channel="presence-chat", user_id="2")

        assert await ben.receive() == {
            "event": "client-typing", "channel": "presence-chat", "data": {"a": [1, "ž"]}, "user_id": "1",
        }  # fmt: skip
        assert await ana.is_quiet()


@pytest.mark.parametrize("channel", ["chat", "private-other", "private-encrypted-a", "nonsense ", ""])
async def test_a_client_event_on_a_public_channel_is_refused(server: RealtimeServer, channel: str) -> None:
    async with connected(server.port) as client, connected(server.port) as other:
        await client.subscribe("chat")
        await other.subscribe("chat")
        client.send("client-x", {}, channel=channel)

        error = await client.expect("pusher:error")
        assert (error["data"]["code"], error["channel"]) == (4301, channel)
        assert await other.is_quiet()


async def test_client_events_are_rate_limited_and_the_connection_stays() -> None:
    async with realtime_server(reverb_app_client_events_per_second=3) as server, connected(server.port) as client:
        await client.subscribe("private-a")
        for _ in range(6):
            client.send("client-x", {}, channel="private-a")

        for _ in range(3):
            error = await client.expect("pusher:error")
            assert (error["data"]["code"], error["channel"]) == (4301, "private-a")
        assert await client.is_quiet()


async def test_the_error_for_a_message_over_the_rate_names_its_channel() -> None:
    limits = {"reverb_app_rate_limiting_enabled": True, "reverb_app_rate_limit_max_attempts": 1}
    async with realtime_server(**limits) as server, connected(server.port) as client:
        await client.subscribe("chat")
        client.send("pusher:subscribe", {"channel": "more"})
        client.send("client-x", {}, channel="private-a")
        client.send_text("nonsense")

        for named in ({"channel": "more"}, {"channel": "private-a"}, {}):
            error = await client.expect("pusher:error")
            assert error == {"event": "pusher:error", "data": error["data"]} | named
            assert error["data"]["code"] == 4301


@pytest.mark.parametrize(
    "text",
    ["", "x", "null", "[]", "1", '"text"', "{}", '{"event":null}', '{"event":1}', '{"event":""}', '{"event":[]}',
     '{"event":"pusher:unknown"}', '{"event":"pusher_internal:member_added","channel":"chat","data":"{}"}',
     '{"event":"pusher:connection_established","data":{}}', '{"event":"pusher:subscribe"}',
     '{"event":"pusher:subscribe","data":"chat"}', '{"event":"pusher:subscribe","data":{"channel":1}}',
     '{"event":"pusher:subscribe","data":{"channel":["chat"]}}', '{"event":"pusher:unsubscribe"}',
     '{"event":"client-x"}', '{"event":"client-","channel":"chat"}', '{"event":"%s"}' % ("e" * 300),
     '{"event":"__proto__","channel":"chat"}', '{"a":NaN}', '{"event":"\\ud800"}', "[" * 5_000, '{"a":' * 2_000],
)  # fmt: skip
async def test_malformed_messages_get_an_error_and_the_connection_stays(server: RealtimeServer, text: str) -> None:
    async with connected(server.port) as client, connected(server.port) as bystander:
        await bystander.subscribe("chat")
        client.send_text(text)

        await client.expect("pusher:error")
        assert await client.is_quiet()
        assert await bystander.is_quiet()


NUMBERED = {"user_id": 2, "user_info": {"name": "Ben"}}


async def test_a_user_id_keeps_the_json_type_it_was_signed_with(server: RealtimeServer) -> None:
    async with connected(server.port) as ana, connected(server.port) as ben:
        await ana.subscribe("presence-chat", ANA)
        state = await ben.subscribe("presence-chat", NUMBERED)

        assert state["presence"]["ids"] == ["1", 2]
        assert set(state["presence"]["hash"]) == {"1", "2"}
        assert json.loads((await ana.expect("pusher_internal:member_added"))["data"]) == NUMBERED
        ben.send("client-x", {}, channel="presence-chat")
        assert (await ana.expect("client-x"))["user_id"] == 2
        ben.send("pusher:unsubscribe", {"channel": "presence-chat"})
        assert json.loads((await ana.expect("pusher_internal:member_removed"))["data"]) == {"user_id": 2}


async def test_a_signed_in_user_id_keeps_its_json_type(server: RealtimeServer) -> None:
    async with connected(server.port) as ben:
        user_data = json.dumps({"id": 2, "user_info": {"name": "Ben"}})
        ben.send("pusher:signin", {"auth": sign_user(KEY, SECRET, ben.socket_id, user_data), "user_data": user_data})
        await ben.expect("pusher:signin_success")

        assert (await ben.subscribe("presence-chat"))["presence"]["ids"] == [2]


@pytest.mark.parametrize(("first", "second"), [(2, "2"), ("2", 2)])
async def test_the_same_id_as_string_and_number_is_one_user_in_its_first_form(
    server: RealtimeServer, first: str | int, second: str | int
) -> None:
    async with connected(server.port) as ana, connected(server.port) as tab1, connected(server.port) as tab2:
        await ana.subscribe("presence-chat", ANA)
        await tab1.subscribe("presence-chat", {"user_id": first})
        await ana.expect("pusher_internal:member_added")
        state = await tab2.subscribe("presence-chat", {"user_id": second})

        assert (state["presence"]["count"], state["presence"]["ids"]) == (2, ["1", first])
        assert await ana.is_quiet()
        users = await call(server.port, "GET", "/apps/1001/channels/presence-chat/users")
        assert users.json() == {"users": [{"id": "1"}, {"id": "2"}]}
        tab1.send("pusher:unsubscribe", {"channel": "presence-chat"})
        tab2.send("client-x", {}, channel="presence-chat")
        assert (await ana.expect("client-x"))["user_id"] == first
        tab2.send("pusher:unsubscribe", {"channel": "presence-chat"})
        assert json.loads((await ana.expect("pusher_internal:member_removed"))["data"]) == {"user_id": first}


async def test_terminating_a_user_ends_every_socket_of_theirs_and_no_other(server: RealtimeServer) -> None:
    async with connected(server.port) as tab1, connected(server.port) as tab2, connected(server.port) as ben:
        await tab1.subscribe("presence-chat", ANA)
        await tab2.subscribe("presence-chat", ANA)
        await ben.subscribe("presence-chat", BEN)
        async with connected(server.port) as anonymous:
            await anonymous.subscribe("chat")
            answer = await call(server.port, "POST", "/apps/1001/users/1/terminate_connections", b"{}")

            assert (answer.status_code, answer.json()) == (200, {})
            assert (await tab1.closed()).code == 4009
            assert (await tab2.closed()).code == 4009
            await ben.expect("pusher_internal:member_removed")
            assert await anonymous.is_quiet()


async def test_all_messages_can_be_limited_and_the_connection_ended() -> None:
    async with (
        realtime_server(
            reverb_app_rate_limiting_enabled=True,
            reverb_app_rate_limit_max_attempts=3,
            reverb_app_rate_limit_terminate=True,
        ) as server,
        connected(server.port) as client,
    ):
        for _ in range(5):
            client.send("pusher:ping", {})

        assert (await client.closed()).code == 4100
