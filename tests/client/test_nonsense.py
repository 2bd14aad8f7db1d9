"""Whatever a server says, a client survives it, keeps order, and comes back or says why it does not."""

from __future__ import annotations

import asyncio
import json
import socket as sockets
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection

from kit.scripted import Scripted, established, scripted
from kit.subscribers import a_client, taken
from kit.tcp import Listener
from kit.waiting import eventually
from smartlink.client import Client, ConnectionRefused, ConnectionState, Gap, SubscriptionFailed

NONSENSE: list[Any] = [
    "", "{", "null", "[]", "1", '"text"', "{}", '{"event":1}', '{"event":null,"data":{}}', b"\x00\xff", "[" * 100_000,
    '{"event":"pusher:error"}', '{"event":"pusher:error","data":"x"}', '{"event":"pusher:error","data":{"code":"x"}}',
    '{"event":"pusher:subscription_error"}', '{"event":"pusher:subscription_error","channel":"other","data":[]}',
    '{"event":"pusher_internal:subscription_succeeded"}',
    '{"event":"pusher_internal:subscription_succeeded","channel":"never","data":"{}"}',
    '{"event":"pusher_internal:member_added","channel":"chat","data":"[]"}',
    '{"event":"pusher_internal:member_removed","channel":"chat","data":"{\\"user_id\\":[]}"}',
    '{"event":"pusher_internal:subscription_count","channel":"chat","data":"x"}',
    '{"event":"pusher:resume_success","channel":"chat","data":"{\\"replayed\\":\\"x\\"}"}',
    '{"event":"pusher:resume_failed","channel":"chat","data":"1"}',
    '{"event":"pusher:signin_success","data":"{\\"user_data\\":\\"[]\\"}"}',
    '{"event":"pusher:signin_success","data":{"user_data":1}}',
    '{"event":"pusher_internal:watchlist_events","data":"{\\"events\\":[1,{\\"user_ids\\":3},{}]}"}',
    '{"event":"pusher:of_the_future","channel":"chat"}', '{"event":"news","channel":"never","data":"1"}',
    '{"event":"pusher:connection_established","data":"{}"}', '{"event":"pusher:pong"}',
]  # fmt: skip


def succeeded(channel: str, data: str = "{}") -> str:
    return json.dumps({"event": "pusher_internal:subscription_succeeded", "channel": channel, "data": data})


async def test_nonsense_changes_nothing() -> None:
    async def play(server: Scripted, socket: ServerConnection) -> None:
        for frame in NONSENSE:
            await socket.send(frame)
        await socket.send(established())
        await server.until_heard(socket, "pusher:subscribe")
        for frame in NONSENSE:
            await socket.send(frame)
        await socket.send(succeeded("chat"))
        for frame in NONSENSE:
            await socket.send(frame)
        await socket.send('{"event":"news","channel":"chat","data":"[1, 2]"}')
        await socket.wait_closed()

    async with scripted(play) as server, a_client(server.port) as client:
        stream = (await client.subscribe("chat")).events()

        assert await taken(stream, 1) == [[1, 2]]
        assert len(server.paths) == 1


@pytest.mark.parametrize("data", ["{}", "[]", "x", '{"presence":1}', '{"presence":{"hash":{"1":3}}}'])
async def test_members_may_be_nonsense(data: str) -> None:
    async def play(server: Scripted, socket: ServerConnection) -> None:
        await socket.send(established())
        await server.until_heard(socket, "pusher:subscribe")
        await socket.send(succeeded("presence-room", data))
        await socket.wait_closed()

    async with scripted(play) as server, a_client(server.port) as client:
        room = await client.presence("presence-room")
        assert set(room.members) <= {"1"}


async def test_a_socket_id_of_another_form_is_no_greeting_and_is_never_signed() -> None:
    async def play(server: Scripted, socket: ServerConnection) -> None:
        await socket.send(established(socket_id="1.1:private-admin"))
        await server.until_heard(socket, "pusher:subscribe")

    async with scripted(play) as server, a_client(server.port, open_timeout_s=0.1) as client:
        client.channel("private-chat")
        await eventually(lambda: len(server.paths) > 1)
        assert server.heard == []
        assert client.socket_id is None


async def test_a_frame_that_is_too_large_is_a_gap_and_not_a_circle() -> None:
    async def play(server: Scripted, socket: ServerConnection) -> None:
        await socket.send(established())
        await server.until_heard(socket, "pusher:subscribe")
        await socket.send(succeeded("chat"))
        if "fresh=0" not in server.paths[-1]:
            await socket.send(json.dumps({"event": "news", "channel": "chat", "data": "x" * 10_000}))
        else:
            await socket.send('{"event":"pusher:resume_failed","channel":"chat","data":"{\\"reason\\":\\"unknown\\"}"}')
        await socket.wait_closed()

    async with scripted(play) as server, a_client(server.port, max_frame_bytes=5_000) as client:
        stream = (await client.subscribe("chat")).events()

        assert await taken(stream, 1) == [Gap("chat", "unknown")]
        first, second = (path.split("/")[2].split(";")[0] for path in server.paths)
        assert first != second


async def test_a_server_that_tells_nothing_of_a_resume_leaves_a_gap_before_what_follows() -> None:
    async def play(server: Scripted, socket: ServerConnection) -> None:
        await socket.send(established())
        await server.until_heard(socket, "pusher:subscribe")
        await socket.send(succeeded("chat"))
        if len(server.paths) == 1:
            return
        await socket.send('{"event":"news","channel":"chat","data":"1"}')
        await socket.wait_closed()

    async with scripted(play) as server, a_client(server.port) as client:
        stream = (await client.subscribe("chat")).events()

        assert await taken(stream, 2) == [Gap("chat", "unknown"), 1]


async def test_a_ping_is_answered_and_a_silent_server_is_left() -> None:
    async def play(server: Scripted, socket: ServerConnection) -> None:
        await socket.send(established())
        if len(server.paths) == 1:
            await socket.send('{"event":"pusher:ping","data":"{}"}')
            await server.until_heard(socket, "pusher:pong")
            await server.until_heard(socket, "pusher:ping")
        await socket.wait_closed()

    async with scripted(play) as server, a_client(server.port, activity_timeout_s=0.1, pong_timeout_s=0.1):
        await eventually(lambda: len(server.paths) > 1)

        assert [message["event"] for message in server.heard] == ["pusher:pong", "pusher:ping"]


async def test_the_activity_timeout_of_the_server_is_taken_if_it_is_shorter() -> None:
    async def play(server: Scripted, socket: ServerConnection) -> None:
        await socket.send(established(activity_timeout=0.05))
        await server.until_heard(socket, "pusher:ping")
        await socket.wait_closed()

    async with scripted(play) as server, a_client(server.port):
        await eventually(lambda: server.heard)


async def test_reverb_refuses_a_subscription_without_naming_it() -> None:
    async def play(server: Scripted, socket: ServerConnection) -> None:
        await socket.send(established())
        await server.until_heard(socket, "pusher:subscribe")
        await socket.send(
            '{"event":"pusher:error","data":"{\\"code\\":4009,\\"message\\":\\"Connection is unauthorized\\"}"}'
        )
        await socket.wait_closed()

    async with scripted(play) as server, a_client(server.port, session=False) as client:
        with pytest.raises(SubscriptionFailed, match="unauthorized"):
            await client.subscribe("private-chat")
        assert client.state is ConnectionState.CONNECTED


async def test_an_error_before_the_greeting_counts_as_its_code_although_the_close_says_nothing() -> None:
    async def play(_: Scripted, socket: ServerConnection) -> None:
        await socket.send('{"event":"pusher:error","data":{"code":4001,"message":"no such app"}}')

    async with scripted(play) as server, a_client(server.port) as client:
        with pytest.raises(ConnectionRefused, match="no such app"):
            await client.connected()


@pytest.mark.parametrize(
    ("answer", "is_final"),
    [
        (b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", True),
        (b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n", False),
        (b"HTTP/1.1 101 Switching\r\n\r\n", False),
        (b"SSH-2.0-OpenSSH_9.2\r\n", False),
        (b"\x00" * 100, False),
        (b"", False),
        (b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 10_000, False),
    ],
)
async def test_another_protocol_or_a_wrong_address_is_told_or_tried_again(answer: bytes, is_final: bool) -> None:
    tries = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal tries
        tries += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()

    listener = Listener(serve)
    await listener.start()
    async with a_client(listener.port) as client:
        if is_final:
            with pytest.raises(ConnectionRefused, match="session=False"):
                await client.connected()
        else:
            await eventually(lambda: tries > 2)
    await listener.stop()


async def test_a_server_that_closes_at_every_step_is_always_tried_again() -> None:
    steps = [established(), succeeded("chat"), '{"event":"news","channel":"chat","data":"1"}']

    async def play(server: Scripted, socket: ServerConnection) -> None:
        count = (len(server.paths) - 1) % (len(steps) + 1)
        for step in steps[:count]:
            await socket.send(step)
            if step is steps[0]:
                await server.until_heard(socket, "pusher:subscribe")
        socket.transport.abort()

    async with scripted(play) as server, a_client(server.port) as client:
        stream = client.channel("chat").events("news")
        while (await taken(stream, 1)) != [1]:
            pass
        await eventually(lambda: len(server.paths) > 6)


async def test_a_callback_that_raises_ends_the_client_with_its_error() -> None:
    async def play(server: Scripted, socket: ServerConnection) -> None:
        await socket.send(established())
        await server.until_heard(socket, "pusher:subscribe")
        await socket.send(succeeded("chat"))
        await socket.send('{"event":"pusher:error","data":{"code":4301,"message":"no"}}')
        await socket.wait_closed()

    def broken(_: object) -> None:
        raise LookupError("a bug")

    async with scripted(play) as server, a_client(server.port, on_error=broken) as client:
        stream = (await client.subscribe("chat")).events()
        with pytest.raises(LookupError, match="a bug"):
            await taken(stream, 1)


@pytest.mark.parametrize(
    "url", ["127.0.0.1:8080", "ftp://x", "ws://", "ws://x?y=1", "ws://x#y", "", "ws://[", "ws://x:port"]
)
def test_a_malformed_address_is_refused_at_once(url: str) -> None:
    with pytest.raises(ValueError):
        Client(url, "key")


async def test_a_name_that_is_no_channel_is_refused_at_once() -> None:
    with sockets.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        async with a_client(unused.getsockname()[1]) as client:
            for name in ("", "a b", "#server-to-user-1", "x" * 201):
                with pytest.raises(ValueError, match="channel name"):
                    client.channel(name)
