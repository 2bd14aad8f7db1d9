"""Signing in, events for one user, watchlists, over real sockets and two nodes."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from kit.client import Client, connected
from kit.engines import Between
from kit.realtime import KEY, SECRET, an_app, call, realtime_server
from kit.waiting import eventually
from smartlink.protocol import encoding
from smartlink.protocol.signing import sign_channel, sign_user
from smartlink.server.cluster.brokers.base import Publication
from smartlink.server.run.lifecycle import RealtimeServer


async def send_to(server: RealtimeServer, user_id: str, data: str = "{}") -> None:
    body = json.dumps({"name": "e", "channel": f"#server-to-user-{user_id}", "data": data}).encode()
    answer = await call(server.port, "POST", "/apps/1001/events", body)
    assert answer.status_code == 200, answer.text


def sign_in(client: Client, user_data: str, auth: str | None = None) -> None:
    if auth is None:
        auth = sign_user(KEY, SECRET, client.socket_id, user_data)
    client.send("pusher:signin", {"auth": auth, "user_data": user_data})


async def watchlist(client: Client) -> dict[str, list[str]]:
    """The next message, which tells who came and went."""
    data = json.loads((await client.expect("pusher_internal:watchlist_events"))["data"])
    return {event["name"]: event["user_ids"] for event in data["events"]}


@asynccontextmanager
async def two_nodes() -> AsyncIterator[tuple[RealtimeServer, RealtimeServer]]:
    between = Between()
    async with (
        realtime_server(engines=between.engines()) as one,
        realtime_server(engines=between.engines()) as two,
    ):
        yield one, two
        assert one.metrics.internal_errors == two.metrics.internal_errors == 0


async def test_an_event_for_a_user_reaches_only_that_user() -> None:
    async with two_nodes() as (one, two), connected(one.port) as ana, connected(one.port) as ben:
        await ana.sign_in("1")
        await ben.sign_in("2")
        await ana.subscribe("#server-to-user-1")
        await ben.subscribe("#server-to-user-2")
        await send_to(two, "1", "hello")

        assert await ana.receive() == {"event": "e", "channel": "#server-to-user-1", "data": "hello"}
        assert await ben.is_quiet()


async def test_a_signed_in_user_receives_their_events_once_subscribed_or_not() -> None:
    async with (
        two_nodes() as (one, two),
        connected(one.port) as ana,
        connected(one.port) as tab,
        connected(one.port) as x,
    ):
        await ana.sign_in("1")
        await tab.sign_in("1", watchlist=["2"])
        await tab.expect("pusher_internal:watchlist_events")
        await x.sign_in("2")
        await tab.expect("pusher_internal:watchlist_events")
        await tab.subscribe("#server-to-user-1")
        for node in (one, two):
            await send_to(node, "1", "hello")
            for client in (ana, tab):
                assert await client.receive() == {"event": "e", "channel": "#server-to-user-1", "data": "hello"}
                assert await client.is_quiet()
        tab.send("pusher:unsubscribe", {"channel": "#server-to-user-1"})
        assert await tab.is_quiet()
        await send_to(two, "1", "again")
        for client in (ana, tab):
            assert (await client.receive())["data"] == "again"
            assert await client.is_quiet()
        assert await x.is_quiet()
        assert (await call(one.port, "GET", "/apps/1001/channels")).json() == {"channels": {}}


async def test_events_right_after_a_sign_in_arrive_and_the_node_unsubscribes_later() -> None:
    between = Between()
    async with realtime_server(engines=between.engines()) as one, realtime_server(engines=between.engines()) as two:
        heard = between.nodes[0].subscribed
        async with connected(one.port) as ana:
            for _ in range(2):
                await ana.sign_in("1")
                await send_to(two, "1")
                await ana.expect("e")
            assert ("1001", "#server-to-user-1") in heard
        await eventually(lambda: not heard)


async def test_events_during_a_sign_in_arrive_after_its_confirmation() -> None:
    between = Between()
    async with realtime_server(engines=between.engines()) as one, connected(one.port) as ana:
        between.joining.shut()
        sign_in(ana, json.dumps({"id": "1"}))
        await eventually(lambda: between.joining.waiting == 1)
        await send_to(one, "1")
        between.joining.open()

        await ana.expect("pusher:signin_success")
        await ana.expect("e")
        assert await ana.is_quiet()


async def test_events_during_a_signed_in_users_subscription_arrive_once() -> None:
    between = Between()
    async with realtime_server(engines=between.engines()) as one, connected(one.port) as ana:
        await ana.sign_in("1")
        between.joining.shut()
        ana.send("pusher:subscribe", {"channel": "#server-to-user-1"})
        await eventually(lambda: between.joining.waiting == 1)
        await send_to(one, "1")
        await ana.expect("e")
        between.joining.open()

        await ana.expect("pusher_internal:subscription_succeeded")
        assert await ana.is_quiet()


async def test_a_socket_can_be_excluded_from_its_users_events(server: RealtimeServer) -> None:
    async with connected(server.port) as ana, connected(server.port) as tab:
        for client in (ana, tab):
            await client.sign_in("1")
        body = {"name": "e", "channel": "#server-to-user-1", "data": "", "socket_id": ana.socket_id}
        assert (await call(server.port, "POST", "/apps/1001/events", json.dumps(body).encode())).status_code == 200

        await tab.expect("e")
        assert await ana.is_quiet()


async def test_only_the_users_own_channel_may_be_subscribed_to(server: RealtimeServer) -> None:
    async with connected(server.port) as client:
        for signed_in in (False, True):
            for channel in ("#server-to-user-2", "#server-to-user-", "#user-1", "#watch-1", "#server-to-user-1 "):
                auth = sign_channel(KEY, SECRET, client.socket_id, "private-a")
                client.send("pusher:subscribe", {"channel": channel, "auth": auth})
                await client.expect("pusher:subscription_error")
            if not signed_in:
                client.send("pusher:subscribe", {"channel": "#server-to-user-1"})
                await client.expect("pusher:subscription_error")
                await client.sign_in("1")


WRONG: dict[str, Any] = {
    "no id": "{}",
    "id null": '{"id":null}',
    "id empty": '{"id":""}',
    "id an object": '{"id":{}}',
    "id true": '{"id":true}',
    "id too long": json.dumps({"id": "u" * 129}),
    "id with a newline": json.dumps({"id": "1\n2"}),
    "id a huge number": '{"id":%s}' % ("9" * 5_000),
    "not JSON": "x",
    "a list": "[]",
    "deep": "[" * 3_000,
    "user_info too large": json.dumps({"id": "1", "user_info": "i" * 2_000}),
}


@pytest.mark.parametrize("name", WRONG)
async def test_user_data_without_a_user_id_ends_the_connection(server: RealtimeServer, name: str) -> None:
    async with connected(server.port) as client:
        sign_in(client, WRONG[name])

        assert await client.error() == 4009
        assert (await client.closed()).code == 4009


async def test_a_wrong_signature_ends_the_connection_and_later_input_is_ignored(server: RealtimeServer) -> None:
    user_data = json.dumps({"id": "1"})
    async with connected(server.port) as other:
        for auth in (
            "", "x", f"{KEY}:{'0' * 64}",
            sign_user(KEY, "guess", "1.1", user_data),
            sign_user(KEY, SECRET, other.socket_id, user_data),
        ):  # fmt: skip
            async with connected(server.port) as client:
                sign_in(client, user_data, auth)
                client.send("pusher:subscribe", {"channel": "chat"})

                assert await client.error() == 4009
                assert (await client.closed()).code == 4009
    assert (await call(server.port, "GET", "/apps/1001/channels")).json() == {"channels": {}}


@pytest.mark.parametrize("data", [None, "x", {}, {"auth": 1, "user_data": "{}"}, {"auth": "", "user_data": {}}])
async def test_a_malformed_sign_in_gets_an_error_and_the_connection_stays(server: RealtimeServer, data: Any) -> None:
    async with connected(server.port) as client:
        client.send("pusher:signin", data)

        assert await client.error() is None
        assert await client.is_quiet()


async def test_signing_in_again_is_allowed_only_as_the_same_user(server: RealtimeServer) -> None:
    async with connected(server.port) as client:
        await client.sign_in("1")
        await client.sign_in("1")
        sign_in(client, json.dumps({"id": "2"}))
        assert await client.error() is None
        client.send("pusher:subscribe", {"channel": "#server-to-user-2"})
        await client.expect("pusher:subscription_error")
        await client.subscribe("#server-to-user-1")


async def test_a_numeric_id_equals_its_text(server: RealtimeServer) -> None:
    async with connected(server.port) as client:
        sign_in(client, '{"id":7}')
        await client.expect("pusher:signin_success")
        await client.subscribe("#server-to-user-7")


async def test_presence_needs_no_channel_data_after_signing_in(server: RealtimeServer) -> None:
    async with connected(server.port) as client:
        await client.sign_in("1", user_info={"name": "Ana"})
        data = await client.subscribe("presence-a")

        assert data == {"presence": {"count": 1, "ids": ["1"], "hash": {"1": {"name": "Ana"}}}}


async def test_terminating_finds_a_user_by_sign_in_or_presence_on_every_node() -> None:
    async with (
        two_nodes() as (one, two),
        connected(one.port) as signed_in,
        connected(two.port) as also_signed_in,
        connected(one.port) as member,
        connected(one.port) as left,
        connected(two.port) as other,
    ):
        await signed_in.sign_in("1")
        await also_signed_in.sign_in("1")
        await member.subscribe("presence-a", {"user_id": "1"})
        await left.subscribe("presence-b", {"user_id": "1"})
        left.send("pusher:unsubscribe", {"channel": "presence-b"})
        assert await left.is_quiet()
        await other.sign_in("2")
        answer = await call(two.port, "POST", "/apps/1001/users/1/terminate_connections", b"{}")

        assert (answer.status_code, answer.json()) == (200, {})
        for client in (signed_in, also_signed_in, member):
            assert (await client.closed()).code == 4009
        assert await left.is_quiet()
        assert await other.is_quiet()
        await eventually(lambda: len(one.node.hub) == 1)
        assert one.node.hub.of_user("1001", "1") == []


async def test_terminating_finds_a_user_named_by_a_private_authorization() -> None:
    async with (
        two_nodes() as (one, two),
        connected(one.port) as named,
        connected(two.port) as on_two_channels,
        connected(one.port) as left,
        connected(one.port) as nobody,
    ):
        await named.subscribe("private-a", {"user_id": "1"})
        for channel in ("private-a", "private-b"):
            await on_two_channels.subscribe(channel, {"user_id": "1"})
        on_two_channels.send("pusher:unsubscribe", {"channel": "private-b"})
        await left.subscribe("private-a", {"user_id": "1"})
        left.send("pusher:unsubscribe", {"channel": "private-a"})
        assert await left.is_quiet()
        await nobody.subscribe("private-a", {"position": 1})
        assert len(one.node.hub.of_user("1001", "1")) == 1

        answer = await call(two.port, "POST", "/apps/1001/users/1/terminate_connections", b"{}")

        assert (answer.status_code, answer.json()) == (200, {})
        for client in (named, on_two_channels):
            assert (await client.closed()).code == 4009
        assert await left.is_quiet()
        assert await nobody.is_quiet()
        await eventually(lambda: len(one.node.hub) == 2)
        assert one.node.hub.of_user("1001", "1") == []


async def test_internal_channels_are_never_listed_or_posted_to_webhooks(server: RealtimeServer) -> None:
    async with connected(server.port) as client:
        await client.sign_in("1", watchlist=["2"])
        assert await watchlist(client) == {"offline": ["2"]}
        await client.subscribe("#server-to-user-1")
        listed = await call(server.port, "GET", "/apps/1001/channels")
        below = await call(server.port, "GET", "/apps/1001/channels", params={"filter_by_prefix": "#"})
        shown = await call(server.port, "GET", "/apps/1001/channels/%23user-1")

        assert listed.json() == below.json() == {"channels": {}}
        assert shown.status_code == 400


async def test_watchers_are_notified_of_the_first_and_last_connection_on_all_nodes() -> None:
    async with two_nodes() as (one, two), connected(one.port) as ana, connected(two.port) as early:
        await early.sign_in("5")
        await ana.sign_in("1", watchlist=["5", "6", 7])
        assert await watchlist(ana) == {"online": ["5"], "offline": ["6", "7"]}
        async with connected(two.port) as ben, connected(one.port) as tab:
            await ben.sign_in("6")
            assert await watchlist(ana) == {"online": ["6"]}
            await tab.sign_in("6")
            assert await ana.is_quiet()
            ben.writer.transport.abort()
            await eventually(lambda: len(two.node.hub) == 1)
            assert await ana.is_quiet()
        assert await watchlist(ana) == {"offline": ["6"]}
        assert await early.is_quiet()


@pytest.mark.parametrize("wrong", ["5", {"5": 1}, [None], [{}], ["5", ""], [True]])
async def test_an_invalid_watchlist_is_an_error_but_the_sign_in_succeeds(server: RealtimeServer, wrong: Any) -> None:
    async with connected(server.port) as ana, connected(server.port) as ben:
        await ana.sign_in("1", watchlist=wrong)
        assert await ana.error() == 4302
        await ben.sign_in("5")

        assert await ana.is_quiet()
        await ana.subscribe("#server-to-user-1")


async def test_a_hundred_users_may_be_watched(server: RealtimeServer) -> None:
    async with connected(server.port) as ana:
        await ana.sign_in("0", watchlist=[str(number) for number in range(100)])

        assert len((await watchlist(ana))["offline"]) == 99
    await eventually(lambda: len(server.node.hub) == 0)
    assert server.node.hub.channel("1001", "#watch-5") is None


async def test_beyond_a_hundred_the_first_hundred_are_watched(server: RealtimeServer) -> None:
    async with connected(server.port) as ana, connected(server.port) as last, connected(server.port) as beyond:
        await ana.sign_in("ana", watchlist=[str(number) for number in range(101)])
        assert await ana.error() == 4302
        assert len((await watchlist(ana))["offline"]) == 100
        await beyond.sign_in("100")
        await last.sign_in("99")

        assert await watchlist(ana) == {"online": ["99"]}


async def test_changes_of_a_user_received_out_of_order_are_reconciled(server: RealtimeServer) -> None:
    async with connected(server.port) as ana, connected(server.port) as ben:
        await ana.sign_in("1", watchlist=["5"])
        assert await watchlist(ana) == {"offline": ["5"]}
        await ben.sign_in("5")
        assert await watchlist(ana) == {"online": ["5"]}

        await eventually(lambda: not server.node._users._rechecks)

        # As another node told it, much too late, when their former connection left there.
        late = Publication("1001", "#watch-5", encoding.watchlist_events({"offline": ["5"]}))
        server.node.deliver(late)

        assert await watchlist(ana) == {"offline": ["5"]}
        assert await watchlist(ana) == {"online": ["5"]}


async def test_a_change_while_the_state_is_read_is_sent_after_it() -> None:
    between = Between()
    async with (
        realtime_server(engines=between.engines()) as server,
        connected(server.port) as ana,
        connected(server.port) as ben,
    ):
        between.reading.shut()
        await ana.sign_in("1", watchlist=["2"])
        await eventually(lambda: between.reading.waiting)
        await ben.sign_in("2")
        between.reading.open()

        assert await watchlist(ana) == {"offline": ["2"]}
        assert await watchlist(ana) == {"online": ["2"]}


async def test_connections_per_user_are_limited_on_all_nodes() -> None:
    between = Between()
    app = an_app(max_connections_per_user=2)
    async with (
        realtime_server(app, engines=between.engines()) as one,
        realtime_server(app, engines=between.engines()) as two,
        connected(one.port) as first,
        connected(two.port) as third,
    ):
        await first.sign_in("1")
        async with connected(two.port) as second:
            await second.sign_in("1")
            sign_in(third, json.dumps({"id": "1"}))
            assert await third.error() == 4100
            assert (await third.closed()).code == 4100
        await eventually(lambda: len(two.node.hub) == 0)
        async with connected(two.port) as fourth:
            await fourth.sign_in("1")


@pytest.mark.parametrize("how", ["nothing", "public"])
async def test_a_connection_without_authorization_in_time_is_closed(how: str) -> None:
    async with (
        realtime_server(an_app(authorization_timeout_s=1, ping_interval_s=60)) as server,
        connected(server.port) as client,
        connected(server.port) as private,
        connected(server.port) as user,
    ):
        if how == "public":
            await client.subscribe("chat")
        await private.subscribe("private-a")
        await user.sign_in("1")

        assert await client.error() == 4009
        assert (await client.closed()).code == 4009
        assert await private.is_quiet()
        assert await user.is_quiet()
