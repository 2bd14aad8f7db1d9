"""The reverb driver against our own server: what only the two of them know between them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest

from kit.client import Client, connected
from kit.realtime import realtime_server
from smartlink.broadcasting import Broadcaster, BroadcastSettings, Channel, Envelope, PresenceChannel
from smartlink.server.lifecycle import RealtimeServer


@pytest.fixture
async def server() -> AsyncIterator[RealtimeServer]:
    async with realtime_server() as running:
        yield running


@pytest.fixture
async def broadcaster(server: RealtimeServer) -> AsyncIterator[Broadcaster]:
    async with Broadcaster.from_settings(BroadcastSettings(_env_file=None, reverb_port=server.port)) as broadcaster:
        yield broadcaster


async def heard(client: Client) -> object:
    return json.loads((await client.expect("said"))["data"])


async def test_all_sockets_of_a_user_are_left_out(server: RealtimeServer, broadcaster: Broadcaster) -> None:
    async with (
        connected(server.port) as signed_in,
        connected(server.port) as member,
        connected(server.port) as other,
    ):
        await signed_in.sign_in("7")
        await signed_in.subscribe("chat")
        await member.subscribe("presence-room", {"user_id": "7"})
        await member.subscribe("chat")
        await other.subscribe("chat")

        sentence = broadcaster.on(Channel("chat")).as_("said")
        await sentence.with_({"n": 1}).to_other_users(7).send()
        await sentence.with_({"n": 2}).send()

        assert [await heard(other) for _ in range(2)] == [{"n": 1}, {"n": 2}]
        assert await heard(signed_in) == {"n": 2}
        assert await heard(member) == {"n": 2}


async def test_a_socket_and_a_user_may_both_be_left_out(server: RealtimeServer, broadcaster: Broadcaster) -> None:
    async with connected(server.port) as one, connected(server.port) as seven, connected(server.port) as other:
        await seven.subscribe("presence-room", {"user_id": "7"})
        for client in (one, other):
            await client.subscribe("presence-room", {"user_id": "1" if client is one else "2"})
        for client, joined in ((seven, 2), (one, 1)):
            for _ in range(joined):
                await client.expect("pusher_internal:member_added")
        event = broadcaster.on(PresenceChannel("room")).as_("said").with_({"n": 1}).event
        await broadcaster.send(event, socket_id=one.socket_id, to_other_users=7)

        assert await heard(other) == {"n": 1}
        assert await one.is_quiet()
        assert await seven.is_quiet()


async def test_what_is_sent_again_with_its_id_arrives_once(server: RealtimeServer, broadcaster: Broadcaster) -> None:
    async with connected(server.port) as client:
        await client.subscribe("chat")
        again = Envelope("chat", "said", '{"n":1}', event_id="41")
        for envelopes, key in (([again], None), ([again, Envelope("chat", "said", '{"n":2}')], "k"), ([again], None)):
            await broadcaster.driver.send(envelopes, idempotency_key=key)
        await broadcaster.driver.send([Envelope("chat", "said", '{"n":3}')])

        assert [await heard(client) for _ in range(3)] == [{"n": 1}, {"n": 2}, {"n": 3}]
