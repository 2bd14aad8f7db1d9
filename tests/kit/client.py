"""A WebSocket client that can misbehave: frames byte by byte, over a real socket. Independent of the server's code."""

from __future__ import annotations

import asyncio
import json
import os
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from kit.realtime import KEY, SECRET
from kit.waiting import LIMIT_S
from smartlink.protocol.signing import sign_channel, sign_user


class Closed(Exception):
    """The server ended the connection."""

    def __init__(self, code: int | None, reason: str = "") -> None:
        super().__init__(f"{code} {reason}")
        self.code = code
        self.reason = reason


class Client:
    """One connection. Every wait has a limit."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.socket_id = ""

    async def handshake(self, path: str, headers: str = "") -> str:
        self.writer.write(
            f"GET {path} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{headers}\r\n".encode()
        )
        async with asyncio.timeout(LIMIT_S):
            return (await self.reader.readuntil(b"\r\n\r\n")).decode()

    def send_frame(
        self, opcode: int, payload: bytes = b"", *, fin: bool = True, masked: bool = True, rsv: int = 0
    ) -> None:
        head = bytes([(0x80 if fin else 0) | rsv << 4 | opcode])
        bit = 0x80 if masked else 0
        if len(payload) < 126:
            head += bytes([bit | len(payload)])
        elif len(payload) < 65_536:
            head += bytes([bit | 126]) + len(payload).to_bytes(2, "big")
        else:
            head += bytes([bit | 127]) + len(payload).to_bytes(8, "big")
        if masked:
            mask = os.urandom(4)
            head += mask
            payload = bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))
        self.writer.write(head + payload)

    def send(self, event: str, data: Any = None, **more: Any) -> None:
        self.send_text(json.dumps({"event": event, "data": data} | more))

    def send_text(self, text: str) -> None:
        self.send_frame(1, text.encode())

    async def frame(self) -> tuple[int, bytes]:
        async with asyncio.timeout(LIMIT_S):
            first, second = await self.reader.readexactly(2)
            size = second & 0x7F
            if size == 126:
                size = int.from_bytes(await self.reader.readexactly(2), "big")
            elif size == 127:
                size = int.from_bytes(await self.reader.readexactly(8), "big")
            return first & 0x0F, await self.reader.readexactly(size)

    async def receive(self) -> dict[str, Any]:
        """The next message that is not a heartbeat; answers pings. Raises Closed."""
        while True:
            try:
                opcode, payload = await self.frame()
            except (asyncio.IncompleteReadError, ConnectionError):
                raise Closed(1006) from None
            if opcode == 8:
                raise Closed(int.from_bytes(payload[:2], "big") if payload else None, payload[2:].decode())
            if opcode == 9:
                self.send_frame(10, payload)
            elif opcode == 1:
                message: dict[str, Any] = json.loads(payload)
                if message["event"] != "pusher:ping":
                    return message
                self.send("pusher:pong", {})

    async def expect(self, event: str) -> dict[str, Any]:
        message = await self.receive()
        assert message["event"] == event, message
        return message

    async def subscribe(self, channel: str, member: dict[str, Any] | None = None) -> dict[str, Any]:
        """Subscribe with a right signature; returns the answer's data."""
        data: dict[str, Any] = {"channel": channel}
        if channel.startswith(("private-", "presence-")):
            if member is not None:
                data["channel_data"] = json.dumps(member)
            data["auth"] = sign_channel(KEY, SECRET, self.socket_id, channel, data.get("channel_data"))
        self.send("pusher:subscribe", data)
        answer = await self.expect("pusher_internal:subscription_succeeded")
        assert answer["channel"] == channel
        decoded: dict[str, Any] = json.loads(answer["data"])
        return decoded

    async def sign_in(self, user_id: str, **more: Any) -> None:
        """Sign in with a right signature."""
        user_data = json.dumps({"id": user_id} | more)
        self.send("pusher:signin", {"auth": sign_user(KEY, SECRET, self.socket_id, user_data), "user_data": user_data})
        answer = await self.expect("pusher:signin_success")
        assert json.loads(answer["data"]) == {"user_data": user_data}

    async def error(self) -> int | None:
        """The code of the next message, which is an error."""
        code: int | None = (await self.expect("pusher:error"))["data"]["code"]
        return code

    async def is_quiet(self) -> bool:
        """Whether nothing is on its way: a ping's answer comes next."""
        self.send("pusher:ping", {})
        return (await self.receive())["event"] == "pusher:pong"

    async def closed(self) -> Closed:
        """Wait for the end, past any message."""
        try:
            while True:
                await self.receive()
        except Closed as closed:
            return closed


@asynccontextmanager
async def raw(port: int, tls: ssl.SSLContext | None = None) -> AsyncIterator[Client]:
    """A TCP connection, no handshake yet."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls, limit=1 << 22)
    try:
        yield Client(reader, writer)
    finally:
        writer.transport.abort()


@asynccontextmanager
async def connected(
    port: int,
    *,
    key: str = KEY,
    query: str = "protocol=7",
    headers: str = "",
    tls: ssl.SSLContext | None = None,
    session: str | None = None,
) -> AsyncIterator[Client]:
    """A client that has been greeted, or refused: then `socket_id` stays empty. `session` is its token."""
    async with raw(port, tls) as client:
        path = "" if session is None else f"/s/{session}"
        answer = await client.handshake(f"{path}/app/{key}?{query}", headers)
        assert answer.startswith("HTTP/1.1 101"), answer
        message = await client.receive()
        if message["event"] == "pusher:connection_established":
            client.socket_id = json.loads(message["data"])["socket_id"]
        else:
            assert message["event"] == "pusher:error", message
            client.refusal = message["data"]  # type: ignore[attr-defined]
        yield client
