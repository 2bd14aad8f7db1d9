"""A client comes back when it should, misses nothing with a session, and says where something is missing."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection

from kit.balancer import Balancer
from kit.realtime import APP_ID, KEY, SECRET, an_app, call, realtime_server
from kit.scripted import Scripted, established, scripted
from kit.subscribers import a_client, publish, taken
from kit.waiting import LIMIT_S, eventually
from smartlink.client import (
    Client,
    ConnectionRefused,
    ConnectionState,
    Gap,
    Member,
    MemberAdded,
    MemberRemoved,
    Secret,
    Stream,
    SubscriptionFailed,
)
from smartlink.client.reconnecting import End, Reconnecting
from smartlink.protocol.signing import sign_channel
from smartlink.server.apps.policies import ChannelPolicy


@asynccontextmanager
async def before(*ports: int) -> AsyncIterator[Balancer]:
    """A line that can be cut."""
    balancer = Balancer(*ports)
    await balancer.start()
    try:
        yield balancer
    finally:
        await balancer.stop()


async def lost(client: Client) -> None:
    await eventually(lambda: client.state is not ConnectionState.CONNECTED)


async def test_what_was_published_while_the_line_was_cut_arrives_once_and_in_order() -> None:
    async with realtime_server() as server, before(server.port) as line, a_client(line.port) as client:
        stream = (await client.subscribe("private-chat")).events()
        for number in range(3):
            await publish(server.port, "private-chat", {"eventId": number})
        assert await taken(stream, 3) == [{"eventId": number} for number in range(3)]

        for number in range(3, 9):
            if number % 2:
                await line.cut()
                await lost(client)
            await publish(server.port, "private-chat", {"eventId": number})

        assert await taken(stream, 6) == [{"eventId": number} for number in range(3, 9)]


async def test_an_event_with_the_id_of_another_is_not_dropped() -> None:
    async with realtime_server() as server, before(server.port) as line, a_client(line.port) as client:
        stream = (await client.subscribe("chat")).events()
        for text in ("first", "second"):
            await publish(server.port, "chat", {"eventId": 1, "text": text})
        await publish(server.port, "chat", {"eventId": 1, "text": "second"})

        assert [each["text"] for each in await taken(stream, 3)] == ["first", "second", "second"]


async def test_the_application_is_not_asked_again_after_a_reconnect() -> None:
    asked = 0

    async def authorize(socket_id: str, channel: str) -> Any:
        nonlocal asked
        asked += 1
        return await Secret(KEY, SECRET).channel(socket_id, channel)

    async with realtime_server() as server, before(server.port) as line, a_client(line.port, auth=authorize) as client:
        channel = await client.subscribe("private-chat")
        for _ in range(3):
            await line.cut()
            await lost(client)
            await channel.ready()

        assert asked == 1


async def test_a_ticket_that_the_server_does_not_take_is_replaced() -> None:
    app = an_app()
    async with realtime_server(app) as one, realtime_server(app) as two, before(one.port) as line:
        async with a_client(line.port) as client:
            channel = await client.subscribe("private-chat")
            stream = channel.events()
            line.ports[:] = [two.port]
            await line.cut()
            await lost(client)
            await channel.ready()

            assert await taken(stream, 1) == [Gap("private-chat", "unknown")]
            await publish(two.port, "private-chat", 1)
            assert await taken(stream, 1) == [1]


async def test_more_than_is_kept_is_a_gap() -> None:
    app = an_app(channels=(ChannelPolicy("chat", history=2),))
    async with realtime_server(app) as server, before(server.port) as line, a_client(line.port) as client:
        stream = (await client.subscribe("chat")).events()
        stopped = line.ports[:]
        line.ports.clear()
        await line.cut()
        await lost(client)
        for number in range(3):
            await publish(server.port, "chat", number)
        line.ports[:] = stopped

        assert await taken(stream, 1) == [Gap("chat", "gap")]
        await publish(server.port, "chat", 3)
        assert await taken(stream, 1) == [3]


async def test_without_a_session_each_reconnect_is_a_gap() -> None:
    async with realtime_server() as server, before(server.port) as line, a_client(line.port, session=False) as client:
        stream = (await client.subscribe("private-chat")).events()
        await line.cut()

        assert await taken(stream, 1) == [Gap("private-chat", "reconnected")]


async def test_gaps_may_be_taken_out_of_the_stream() -> None:
    gaps: list[Gap] = []
    async with realtime_server() as server, before(server.port) as line, a_client(line.port, session=False) as client:
        channel = await client.subscribe("chat")
        stream = channel.events("news", on_gap=gaps.append)
        await line.cut()
        await lost(client)
        await channel.ready()
        await publish(server.port, "chat", 1)

        assert await taken(stream, 1) == [1]
        assert gaps == [Gap("chat", "reconnected")]


async def test_a_reader_that_is_too_slow_is_told_how_many_were_dropped() -> None:
    async with realtime_server() as server, a_client(server.port) as client:
        channel = await client.subscribe("chat")
        slow, quick = channel.events(buffer=2), channel.events()
        for number in range(5):
            await publish(server.port, "chat", number)
        assert await taken(quick, 5) == [0, 1, 2, 3, 4]

        assert await taken(slow, 3) == [Gap("chat", "overflow", 3), 3, 4]


async def test_members_that_came_and_went_meanwhile_are_told() -> None:
    ben, eve = (Secret(KEY, SECRET, user_id=user_id) for user_id in ("8", "9"))
    async with realtime_server() as server, before(server.port) as line, a_client(line.port) as client:
        async with a_client(server.port, auth=ben) as other:
            await other.subscribe("presence-room")
            room = await client.presence("presence-room")
            changes = room.changes()
            stopped = line.ports[:]
            line.ports.clear()
            await line.cut()
            await lost(client)
        async with a_client(server.port, auth=eve) as other:
            await other.subscribe("presence-room")
            line.ports[:] = stopped

            assert [await changes.get(LIMIT_S) for _ in range(2)] == [
                MemberRemoved(Member("8")),
                MemberAdded(Member("9")),
            ]
            assert set(room.members) == {"7", "9"}


async def test_an_authorization_that_expires_is_renewed_and_the_gap_told() -> None:
    asked = 0

    async def authorize(socket_id: str, channel: str) -> dict[str, str]:
        nonlocal asked
        asked += 1
        data = json.dumps({"expires_at": time.time() + (1 if asked == 1 else 3600)})
        return {"auth": sign_channel(KEY, SECRET, socket_id, channel, data), "channel_data": data}

    async with realtime_server() as server, a_client(server.port, auth=authorize) as client:
        stream = (await client.subscribe("private-chat")).events()

        assert await taken(stream, 1) == [Gap("private-chat", "expired")]
        await publish(server.port, "private-chat", 1)
        assert await taken(stream, 1) == [1]


async def test_a_revoked_channel_ends_its_streams_and_no_others() -> None:
    async with realtime_server() as server, a_client(server.port) as client:
        stream = (await client.subscribe("private-chat")).events()
        other = (await client.subscribe("private-other")).events()
        body = b'{"all": true, "reason": "the order was archived"}'
        await call(server.port, "POST", f"/apps/{APP_ID}/channels/private-chat/revoke", body)

        with pytest.raises(SubscriptionFailed) as caught:
            await stream.get(LIMIT_S)
        assert (caught.value.kind, caught.value.status) == ("Revoked", 403)
        await publish(server.port, "private-other", 1)
        assert await taken(other, 1) == [1]


async def test_a_terminated_user_does_not_come_back() -> None:
    async with realtime_server() as server, a_client(server.port) as client:
        stream = (await client.subscribe("presence-room")).events()
        await call(server.port, "POST", f"/apps/{APP_ID}/users/7/terminate_connections", b"{}")

        with pytest.raises(ConnectionRefused) as caught:
            await stream.get(LIMIT_S)
        assert caught.value.code == 4009
        assert client.state is ConnectionState.REFUSED
        with pytest.raises(ConnectionRefused):
            await client.subscribe("chat")


async def test_a_server_that_starts_later_is_found_and_one_that_stops_is_waited_for() -> None:
    states: list[str] = []
    async with before() as line, a_client(line.port, on_state=states.append, open_timeout_s=0.3) as client:
        for _ in range(2):
            async with realtime_server() as server:
                line.ports[:] = [server.port]
                await client.connected()
                await client.subscribe("chat")
                line.ports.clear()
            await lost(client)
    assert states[0] == "connecting"
    assert states.count("connected") == 2
    assert states[-1] == "closed"


@pytest.mark.parametrize(
    ("code", "comes_back"), [(4001, False), (4009, False), (4100, True), (4200, True), (4301, False), (1006, True)]
)
async def test_the_close_code_decides_whether_a_client_comes_back(code: int, comes_back: bool) -> None:
    async def play(_: Scripted, socket: ServerConnection) -> None:
        await socket.send(established())
        if code == 1006:
            socket.transport.abort()
        await socket.close(code, "because")

    async with scripted(play) as server, a_client(server.port) as client:
        if comes_back:
            await eventually(lambda: len(server.paths) > 2)
            assert client.state is not ConnectionState.REFUSED
        else:
            await eventually(lambda: client.state is ConnectionState.REFUSED)
            with pytest.raises(ConnectionRefused) as caught:
                await client.connected()
            assert (caught.value.code, caught.value.reason, len(server.paths)) == (code, "because", 1)


def test_pauses_grow_to_their_longest_and_begin_anew_after_a_steady_connection() -> None:
    pauses = Reconnecting(1.0, 8.0)
    lost = End(None, "lost")

    grown = [pauses.pause_s(lost, 0) or 0 for _ in range(5)]

    for pause_s, longest_s in zip(grown, (1, 2, 4, 8, 8), strict=True):
        assert longest_s / 2 <= pause_s <= longest_s
    assert 0.5 <= (pauses.pause_s(lost, 60) or 0) <= 1


def test_a_client_that_is_sent_away_comes_back_at_once_but_not_in_a_circle() -> None:
    pauses = Reconnecting()
    sent_away = End(4200, "drain")

    assert pauses.pause_s(sent_away, 60) == 0
    assert (pauses.pause_s(sent_away, 0.01) or 0) >= 0.5
    assert pauses.pause_s(sent_away, 60) == 0
    assert pauses.pause_s(End(4100, "full"), 60) != 0
    assert pauses.pause_s(End(4099, ""), 60) is None


async def test_streams_that_nobody_holds_are_discarded() -> None:
    async with realtime_server() as server, a_client(server.port) as client:
        channel = await client.subscribe("chat")
        for _ in range(100):
            channel.events()
        kept: Stream[Any] = channel.events()
        await publish(server.port, "chat", 1)

        assert await taken(kept, 1) == [1]
        assert len(list(channel._subscription._of_all)) == 1
        assert len(channel._subscription._of_all._references) == 1


async def test_two_clients_over_one_cut_line_have_sessions_of_their_own() -> None:
    async with realtime_server() as server, before(server.port) as line:
        async with a_client(line.port) as one, a_client(line.port) as two:
            streams = [(await each.subscribe("chat")).events() for each in (one, two)]
            await line.cut()
            await asyncio.gather(lost(one), lost(two))
            await publish(server.port, "chat", 1)

            assert [await taken(stream, 1) for stream in streams] == [[1], [1]]
