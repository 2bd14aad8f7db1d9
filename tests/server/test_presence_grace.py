"""A member whose connection was lost stays one for a while, so that nobody notices when they come back."""

from __future__ import annotations

import asyncio

import pytest

from kit.client import Client, connected
from kit.cluster import cluster
from kit.realtime import APP_ID, an_app, realtime_server
from smartlink.server.apps.policies import ChannelPolicy

TOKEN = "a-session-token-of-the-tests"
POLICIES = '[{"pattern": "presence-*", "presence_grace_s": 1}]'
GRACIOUS = an_app(channels=(ChannelPolicy("presence-*", presence_grace_s=1),))


async def joined(client: Client, user_id: str) -> None:
    await client.subscribe("presence-room", {"user_id": user_id})


async def test_whoever_comes_back_in_time_was_never_gone_for_the_others() -> None:
    async with realtime_server(GRACIOUS) as server, connected(server.port) as other:
        await joined(other, "8")
        async with connected(server.port, session=TOKEN) as client:
            await joined(client, "7")
            await other.expect("pusher_internal:member_added")
        assert await other.is_quiet()
        async with connected(server.port, session=TOKEN) as client:
            await joined(client, "7")
            assert await other.is_quiet()
            client.send("pusher:unsubscribe", {"channel": "presence-room"})
            await other.expect("pusher_internal:member_removed")


async def test_whoever_stays_away_leaves_when_the_time_is_over() -> None:
    async with realtime_server(GRACIOUS) as server, connected(server.port) as other:
        await joined(other, "8")
        async with connected(server.port, session=TOKEN) as client:
            await joined(client, "7")
            await other.expect("pusher_internal:member_added")
        assert await other.is_quiet()
        await other.expect("pusher_internal:member_removed")


@pytest.mark.parametrize("payload", [b"", b"\x03\xe8", b"\x03\xe9"], ids=["no code", "1000", "1001"])
async def test_a_client_that_closes_leaves_at_once(payload: bytes) -> None:
    gracious = an_app(channels=(ChannelPolicy("presence-*", presence_grace_s=300),))
    async with realtime_server(gracious) as server, connected(server.port) as other:
        await joined(other, "8")
        async with connected(server.port, session=TOKEN) as client:
            await joined(client, "7")
            await other.expect("pusher_internal:member_added")
            client.send_frame(8, payload)
            await other.expect("pusher_internal:member_removed")


async def test_without_a_session_a_lost_member_leaves_at_once() -> None:
    gracious = an_app(channels=(ChannelPolicy("presence-*", presence_grace_s=300),))
    async with realtime_server(gracious) as server, connected(server.port) as other:
        await joined(other, "8")
        async with connected(server.port) as client:
            await joined(client, "7")
            await other.expect("pusher_internal:member_added")
        await other.expect("pusher_internal:member_removed")


async def test_a_node_that_stops_gives_its_members_the_time_to_arrive_elsewhere() -> None:
    async with cluster(2, reverb_app_channels=POLICIES) as nodes:
        one, two = nodes.nodes
        async with connected(two.port) as other, connected(one.port, session=TOKEN) as client:
            await joined(other, "8")
            await joined(client, "7")
            await other.expect("pusher_internal:member_added")
            stopping = asyncio.create_task(one.stop())
            assert (await client.closed()).code == 4200
            async with connected(two.port, session=TOKEN) as client_again:
                await joined(client_again, "7")
                await stopping
                assert await other.is_quiet()
                members = await nodes.presence.members(APP_ID, "presence-room")
                assert [member.user_id for member in members] == ["8", "7"]
