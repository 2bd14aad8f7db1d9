"""WebSocket framing over real sockets: errors, their codes, and no effect on others."""

from __future__ import annotations

import asyncio
import json

import pytest

from kit.client import Closed, connected, raw
from kit.realtime import call, realtime_server
from kit.waiting import LIMIT_S
from smartlink.server.run.lifecycle import RealtimeServer


async def test_the_first_message_is_the_greeting(server: RealtimeServer) -> None:
    async with raw(server.port) as client:
        answer = await client.handshake("/app/app-key?protocol=7&client=js&version=8.6.0&flash=false")
        greeting = await client.receive()

    assert "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in answer
    assert greeting["event"] == "pusher:connection_established"
    data = json.loads(greeting["data"])
    assert data["activity_timeout"] == 30
    first, dot, second = data["socket_id"].partition(".")
    assert dot
    assert first.isdigit()
    assert second.isdigit()


FAULTS = {
    "unmasked": (1002, lambda c: c.send_frame(1, b"{}", masked=False)),
    "reserved bit 1": (1002, lambda c: c.send_frame(1, b"{}", rsv=4)),
    "reserved bit 2": (1002, lambda c: c.send_frame(1, b"{}", rsv=2)),
    "reserved bit 3": (1002, lambda c: c.send_frame(1, b"{}", rsv=1)),
    "opcode 3": (1002, lambda c: c.send_frame(3)),
    "opcode 7": (1002, lambda c: c.send_frame(7)),
    "opcode 11": (1002, lambda c: c.send_frame(11)),
    "opcode 15": (1002, lambda c: c.send_frame(15)),
    "long ping": (1002, lambda c: c.send_frame(9, b"x" * 126)),
    "fragmented ping": (1002, lambda c: c.send_frame(9, b"x", fin=False)),
    "lone continuation": (1002, lambda c: c.send_frame(0, b"x")),
    "message inside a fragmented one": (1002, lambda c: (c.send_frame(1, b"{", fin=False), c.send_frame(1, b"}"))),
    "length not minimal": (1002, lambda c: c.writer.write(b"\x81\xfe\x00\x05\0\0\0\0hello")),
    "length with top bit": (1002, lambda c: c.writer.write(b"\x81\xff\x80" + b"\0" * 7 + b"\0\0\0\0")),
    "one GiB announced": (1009, lambda c: c.writer.write(b"\x81\xff" + (1 << 30).to_bytes(8, "big"))),
    "too large": (1009, lambda c: c.send_frame(1, b"x" * 10_241)),
    "too large in sum": (1009, lambda c: [c.send_frame(1 if i == 0 else 0, b"x" * 6_000, fin=False) for i in range(2)]),
    "endless tiny fragments": (
        1009,
        lambda c: [c.send_frame(1 if i == 0 else 0, b"", fin=False) for i in range(2_000)],
    ),
    "binary": (1003, lambda c: c.send_frame(2, b"{}")),
    "not UTF-8": (1007, lambda c: c.send_frame(1, b"\xff")),
    "not UTF-8 before the last fragment": (
        1007,
        lambda c: c.send_frame(1, b"\xce\xba\xe1\xbd\xb9\xed\xa0\x80", fin=False),
    ),
    "close payload of one byte": (1002, lambda c: c.send_frame(8, b"\x03")),
    "close code 0": (1002, lambda c: c.send_frame(8, b"\0\0")),
    "close code 1005": (1002, lambda c: c.send_frame(8, (1005).to_bytes(2, "big"))),
    "close code 1015": (1002, lambda c: c.send_frame(8, (1015).to_bytes(2, "big"))),
    "close code 2999": (1002, lambda c: c.send_frame(8, (2999).to_bytes(2, "big"))),
    "close reason not UTF-8": (1007, lambda c: c.send_frame(8, (1000).to_bytes(2, "big") + b"\xff")),
}


@pytest.mark.parametrize("name", FAULTS)
async def test_a_framing_error_ends_only_its_connection_with_the_right_code(server: RealtimeServer, name: str) -> None:
    code, misbehave = FAULTS[name]
    async with connected(server.port) as bystander, connected(server.port) as culprit:
        await bystander.subscribe("chat")
        misbehave(culprit)

        assert (await culprit.closed()).code == code
        await call(server.port, "POST", "/apps/1001/events", b'{"name":"still","channel":"chat","data":"here"}')
        assert (await bystander.receive())["event"] == "still"


async def test_a_character_split_over_fragments_is_joined(server: RealtimeServer) -> None:
    text = '{"event":"pusher:subscribe","data":{"channel":"žluťoučký"}}'.encode()
    async with connected(server.port) as client:
        for index in range(len(text)):
            client.send_frame(1 if index == 0 else 0, text[index : index + 1], fin=index == len(text) - 1)

        assert (await client.receive())["data"]["type"] == "InvalidChannel"


async def test_close_is_answered_and_data_after_it_ignored(server: RealtimeServer) -> None:
    async with connected(server.port) as client:
        client.send_frame(8, (1000).to_bytes(2, "big"))
        client.send("pusher:ping", {})

        with pytest.raises(Closed) as closed:
            await client.receive()
        assert closed.value.code == 1000


async def test_pings_of_both_kinds_are_answered(server: RealtimeServer) -> None:
    async with connected(server.port) as client:
        client.send_frame(9, b"payload")
        assert await client.frame() == (10, b"payload")
        client.send("pusher:ping", {})
        assert await client.receive() == {"event": "pusher:pong", "data": "{}"}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ("Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 12\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", 426),
        ("Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n", 400),
        ("Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: short\r\n", 400),
        ("Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n" + "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n" * 2, 400),
        ("", 426),
        ("Upgrade: h2c\r\nConnection: Upgrade\r\n", 426),
        ("X: " + "a" * 20_000 + "\r\n", 431),
        ("".join(f"X-{i}: 1\r\n" for i in range(200)), 431),
    ],
    ids=["version", "no key", "short key", "two keys", "no upgrade", "h2c", "large header", "many headers"],
)  # fmt: skip
async def test_a_bad_handshake_gets_one_response(server: RealtimeServer, headers: str, status: int) -> None:
    async with raw(server.port) as client:
        client.writer.write(f"GET /app/app-key?protocol=7 HTTP/1.1\r\nHost: x\r\n{headers}\r\n".encode())
        async with asyncio.timeout(LIMIT_S):
            answer = await client.reader.read()

    assert answer.startswith(f"HTTP/1.1 {status} ".encode())
    assert answer.count(b"HTTP/1.1") == 1


@pytest.mark.parametrize(
    ("key", "query", "code"),
    [("nobody", "protocol=7", 4001), ("app-key", "protocol=99", 4007)],
)
async def test_a_refused_client_learns_why_and_can_do_nothing(
    server: RealtimeServer, key: str, query: str, code: int
) -> None:
    async with connected(server.port, key=key, query=query) as client:
        client.send("pusher:subscribe", {"channel": "chat"})

        closed = await client.closed()
    assert closed.code == code
    answer = await call(server.port, "GET", "/apps/1001/channels")
    assert answer.json() == {"channels": {}}


@pytest.mark.parametrize("query", ["", "protocol=", "client=js&version=8.6.0"])
async def test_the_default_protocol_is_7(server: RealtimeServer, query: str) -> None:
    async with connected(server.port, query=query) as client:
        await client.subscribe("chat")


@pytest.mark.parametrize(
    "opener",
    ['{"connect":{"name":"js"},"id":1}', '{"connect":{},"id":1}\n{"subscribe":{"channel":"chat"},"id":2}',
     '{"id":1,"method":1,"params":{}}', '{"type":"connection_init"}', '{"command":"subscribe","identifier":"{}"}',
     '{"topic":"room:lobby","event":"phx_join","payload":{},"ref":"1"}'],
)  # fmt: skip
async def test_a_client_of_another_protocol_is_refused_with_the_supported_one(
    server: RealtimeServer, opener: str
) -> None:
    async with connected(server.port) as client:
        client.send_text(opener)

        assert await client.error() == 4501
        closed = await client.closed()
    assert (closed.code, "Pusher Channels protocol 7" in closed.reason) == (4501, True)


async def test_a_frame_of_another_protocol_is_an_error_and_the_connection_stays(server: RealtimeServer) -> None:
    async with connected(server.port) as client:
        await client.subscribe("chat")
        client.send_text('{"connect":{},"id":1}')

        assert await client.error() is None
        assert await client.is_quiet()


async def test_over_capacity_closes_with_4100_and_counts_sockets_without_subscription() -> None:
    async with realtime_server(reverb_app_max_connections=2) as server, connected(server.port), connected(server.port):
        async with connected(server.port) as third:
            assert (await third.closed()).code == 4100


async def test_only_allowed_origins_may_connect() -> None:
    async with realtime_server(reverb_app_allowed_origins="https://a.example") as server:
        async with connected(server.port, headers="Origin: https://b.example\r\n") as client:
            assert (client.socket_id, (await client.closed()).code) == ("", 4009)
        async with connected(server.port, headers="Origin: https://a.example\r\n") as client:
            assert client.socket_id
