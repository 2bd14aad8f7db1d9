"""A client hears what is published, on every kind of channel, as plain events and as classes."""

from __future__ import annotations

import asyncio
import base64
import json
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pytest
from pydantic import BaseModel

from kit.realtime import APP_ID, KEY, SECRET, an_app, call, realtime_server
from kit.subscribers import a_client, publish, taken
from kit.waiting import LIMIT_S, eventually
from smartlink.broadcasting import BroadcastEvent, ChannelEncryption, PrivateChannel
from smartlink.broadcasting.payloads import encode_payload
from smartlink.client import (
    ClientClosed,
    Event,
    Gap,
    InvalidPayload,
    Member,
    MemberAdded,
    MemberRemoved,
    MemberUpdated,
    NotSubscribed,
    Own,
    Secret,
    ServerError,
    SubscriptionFailed,
    Watched,
)
from smartlink.protocol.signing import sign_channel


class OrderShipped(BroadcastEvent):
    order_id: int
    total: Decimal
    channel = PrivateChannel("orders.{order_id}")


class OrderCancelled(BroadcastEvent):
    order_id: int
    channel = PrivateChannel("orders.{order_id}")

    def broadcast_as(self) -> str:
        return "order.cancelled"


class Model(BaseModel):
    n: int


@dataclass
class Plain:
    n: int


@pytest.mark.parametrize("channel", ["chat", "private-chat", "presence-chat", "cache-chat", "private-cache-chat"])
async def test_what_is_published_arrives_on_every_kind_of_channel(channel: str) -> None:
    async with realtime_server() as server, a_client(server.port) as client:
        stream = (await client.subscribe(channel)).events()

        await publish(server.port, channel, {"n": 1})

        event = await stream.get(LIMIT_S)
        assert isinstance(event, Event)
        assert (event.name, event.channel, event.data, event.text) == ("news", channel, {"n": 1}, '{"n": 1}')


async def test_what_arrives_before_the_first_stream_waits_for_it() -> None:
    async with realtime_server() as server, a_client(server.port) as client:
        await publish(server.port, "cache-chat", {"n": 1})
        channel = await client.subscribe("cache-chat")
        await publish(server.port, "cache-chat", {"n": 2})
        await client.subscribe("other")

        assert await taken(channel.events("news"), 2) == [{"n": 1}, {"n": 2}]


async def test_a_cache_channel_without_an_event_says_so_to_those_who_ask() -> None:
    async with realtime_server() as server, a_client(server.port) as client:
        channel = client.channel("cache-chat")
        missed, everything = channel.events("pusher:cache_miss"), channel.events()
        await channel.ready()

        assert (await missed.get(LIMIT_S)) == Event("pusher:cache_miss", "cache-chat", None)
        await publish(server.port, "cache-chat", 1)
        assert await taken(everything, 1) == [1]


async def test_an_encrypted_channel_is_opened_with_its_secret() -> None:
    master_key = base64.b64encode(b"k" * 32).decode()
    encryption = ChannelEncryption(master_key)
    auth = Secret(KEY, SECRET, encryption_master_key=master_key)
    async with realtime_server() as server, a_client(server.port, auth=auth) as client:
        stream = (await client.subscribe("private-encrypted-health")).events()

        sealed = encryption.seal("private-encrypted-health", '{"n": 1}')
        await publish(server.port, "private-encrypted-health", json.loads(sealed))

        assert await taken(stream, 1) == [{"n": 1}]


async def test_a_new_secret_is_asked_for_once_and_what_nobody_can_open_is_a_gap() -> None:
    old, new, wrong = (base64.b64encode(each * 32).decode() for each in (b"o", b"n", b"w"))
    name, asked = "private-encrypted-health", 0

    async def authorize(socket_id: str, channel: str) -> Any:
        nonlocal asked
        asked += 1
        return await Secret(KEY, SECRET, encryption_master_key=old if asked == 1 else new).channel(socket_id, channel)

    async with realtime_server() as server, a_client(server.port, auth=authorize) as client:
        stream = (await client.subscribe(name)).events()
        for number, key in enumerate((old, new, new, wrong, new)):
            await publish(server.port, name, json.loads(ChannelEncryption(key).seal(name, str(number))))

        assert await taken(stream, 5) == [0, 1, 2, Gap(name, "undecryptable", 1), 4]
        assert asked == 2


async def test_events_become_instances_of_their_classes() -> None:
    shipped, cancelled = OrderShipped(7, Decimal("1.50")), OrderCancelled(7)
    async with realtime_server() as server, a_client(server.port) as client:
        stream = (await client.subscribe("private-orders.7")).events(OrderShipped, OrderCancelled)

        payload = json.loads(encode_payload(shipped.broadcast_with())) | {"eventId": 1}
        await publish(server.port, "private-orders.7", payload, name="App\\Events\\OrderShipped")
        await publish(server.port, "private-orders.7", {}, name="something else")
        await publish(server.port, "private-orders.7", {"order_id": 7}, name="order.cancelled")

        assert await taken(stream, 2) == [shipped, cancelled]


@pytest.mark.parametrize("kind", [Model, Plain])
async def test_models_and_dataclasses_are_read_too_and_what_does_not_fit_raises(kind: Any) -> None:
    async with realtime_server() as server, a_client(server.port, namespace="") as client:
        channel = await client.subscribe("chat")
        by_name, by_class = channel.events({"n.changed": kind}), channel.events(kind)

        for n in (1, "one", 2):
            await publish(server.port, "chat", {"n": n}, name="n.changed")
            await publish(server.port, "chat", {"n": n}, name=kind.__name__)

        for stream in (by_name, by_class):
            assert await taken(stream, 1) == [kind(n=1)]
            with pytest.raises(InvalidPayload) as caught:
                await stream.get(LIMIT_S)
            assert caught.value.event.data == {"n": "one"}  # type: ignore[attr-defined] # it is an Event
            assert await taken(stream, 1) == [kind(n=2)]


async def test_members_are_known_and_their_changes_told() -> None:
    async with realtime_server() as server, a_client(server.port) as client:
        room = await client.presence("presence-room")
        changes = room.changes()
        assert (room.me, dict(room.members)) == (Member("7", {"name": "Ana"}), {"7": Member("7", {"name": "Ana"})})

        ben = Secret(KEY, SECRET, user_id="8", user_info={"name": "Ben"})
        async with a_client(server.port, auth=ben) as other:
            await other.presence("presence-room")
            assert await changes.get(LIMIT_S) == MemberAdded(Member("8", {"name": "Ben"}))
            assert set(room.members) == {"7", "8"}
            body = json.dumps({"user_info": {"name": "Bea"}, "channels": ["presence-room"]}).encode()
            await call(server.port, "POST", f"/apps/{APP_ID}/users/8/info", body)
            assert await changes.get(LIMIT_S) == MemberUpdated(Member("8", {"name": "Bea"}))

        assert await changes.get(LIMIT_S) == MemberRemoved(Member("8", {"name": "Bea"}))
        assert set(room.members) == {"7"}


async def test_client_events_reach_the_others_with_their_sender() -> None:
    async with realtime_server() as server, a_client(server.port) as one, a_client(server.port) as two:
        sender, receiver = await one.subscribe("presence-room"), await two.subscribe("presence-room")
        heard, own = receiver.events(), sender.events()

        await sender.whisper("typing", {"on": True})
        await receiver.whisper("client-done")

        event = await heard.get(LIMIT_S)
        assert isinstance(event, Event)
        assert (event.name, event.data, event.user_id) == ("client-typing", {"on": True}, "7")
        assert (await own.get(LIMIT_S)).name == "client-done"  # type: ignore[union-attr] # not a gap


async def test_a_refused_client_event_is_reported_and_ends_nothing() -> None:
    errors: list[ServerError] = []
    app = an_app(accepts_client_events=False)
    async with realtime_server(app) as server, a_client(server.port, on_error=errors.append) as client:
        channel = await client.subscribe("private-room")
        await channel.whisper("typing")
        await eventually(lambda: errors)

        assert (errors[0].code, errors[0].channel) == (4301, "private-room")
        assert channel.is_subscribed


async def test_client_events_need_a_subscription_and_a_channel_that_takes_them() -> None:
    auth = Secret(KEY, SECRET, encryption_master_key=base64.b64encode(b"k" * 32).decode())
    async with realtime_server() as server, a_client(server.port, auth=auth) as client:
        with pytest.raises(NotSubscribed):
            await client.channel("private-room").whisper("typing")
        with pytest.raises(ValueError, match="cannot read"):
            await (await client.subscribe("private-encrypted-room")).whisper("typing")
        with pytest.raises(TypeError):
            await (await client.subscribe("private-room")).whisper("typing", object())


async def test_a_signed_in_user_hears_what_is_theirs_and_who_comes_online() -> None:
    auth = Secret(KEY, SECRET, user_id="7", watchlist=("8",))
    async with realtime_server() as server, a_client(server.port, auth=auth) as client:
        user = await client.sign_in()
        watched, mine = user.watchlist(), user.events()

        await publish(server.port, "#server-to-user-7", {"n": 1})
        async with a_client(server.port, auth=Secret(KEY, SECRET, user_id="8")) as other:
            await other.sign_in()
            assert await watched.get(LIMIT_S) == Watched("8", is_online=True)
            assert user.online == {"8"}

        assert await watched.get(LIMIT_S) == Watched("8", is_online=False)
        assert (user.id, await taken(mine, 1)) == ("7", [{"n": 1}])


async def test_a_presence_channel_may_take_the_member_from_the_sign_in() -> None:
    async def authorize(socket_id: str, channel: str) -> dict[str, str]:
        return {"auth": sign_channel(KEY, SECRET, socket_id, channel)}

    auth = Own(authorize, Secret(KEY, SECRET, user_id="7", user_info={"name": "Ana"}).user)
    async with realtime_server() as server, a_client(server.port, auth=auth) as client:
        signing_in = asyncio.create_task(client.sign_in())
        await asyncio.sleep(0)
        room = await client.presence("presence-room")
        await signing_in

        assert room.me == Member("7", {"name": "Ana"})


async def test_counts_of_subscribers_are_known_where_the_server_tells_them() -> None:
    async with realtime_server(an_app(sends_subscription_counts=True)) as server, a_client(server.port) as client:
        channel = await client.subscribe("chat")
        await eventually(lambda: channel.subscription_count == 1)


@pytest.mark.parametrize(
    ("channel", "auth", "kind"),
    [
        ("private-chat", Secret(KEY, "wrong"), "AuthError"),
        ("private-chat", None, "Denied"),
        ("presence-chat", Secret(KEY, SECRET), "Denied"),
        ("private-encrypted-chat", Secret(KEY, SECRET), "Denied"),
    ],
)
async def test_a_refused_subscription_raises_and_leaves_the_others(channel: str, auth: Any, kind: str) -> None:
    async with realtime_server() as server, a_client(server.port, auth=auth) as client:
        with pytest.raises(SubscriptionFailed) as caught:
            await client.subscribe(channel)

        assert (caught.value.kind, caught.value.channel) == (kind, channel)
        assert (await client.subscribe("chat")).is_subscribed


async def test_a_channel_that_is_left_is_quiet_and_may_be_joined_anew() -> None:
    async with realtime_server() as server, a_client(server.port) as client:
        left = await client.subscribe("chat")
        stream = left.events()
        await left.unsubscribe()
        assert [event async for event in stream] == []

        again = (await client.subscribe("chat")).events()
        await publish(server.port, "chat", 1)
        assert await taken(again, 1) == [1]
        with pytest.raises(ClientClosed):
            await left.ready()


async def test_many_channels_are_subscribed_at_once() -> None:
    async with realtime_server() as server, a_client(server.port) as client:
        channels = [client.channel(f"private-c{number}") for number in range(300)]
        async with asyncio.timeout(LIMIT_S):
            await asyncio.gather(*(channel.ready() for channel in channels))


async def test_closing_ends_what_waits() -> None:
    async with realtime_server() as server:
        client = a_client(server.port)
        async with client:
            stream = (await client.subscribe("chat")).events()
            await publish(server.port, "chat", 1)
            reading = asyncio.create_task(_all(stream))
            await eventually(lambda: stream._waiter is not None)
        assert await reading == [1]
        with pytest.raises(ClientClosed):
            await client.subscribe("chat")
        with pytest.raises(ClientClosed):
            client.start()
        await client.close()
        await eventually(lambda: len(server.node.hub) == 0)


async def _all(stream: Any) -> list[Any]:
    return [event.data async for event in stream]
