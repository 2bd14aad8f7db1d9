"""A client of the HTTP fallback that can misbehave: requests byte by byte, over real sockets. Independent of the
server's code."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Self

from kit.client import Closed
from kit.realtime import KEY, SECRET
from kit.waiting import LIMIT_S
from smartlink.protocol.signing import sign_channel

__all__ = ["Answer", "XhrClient", "request", "session_name"]

_numbers = itertools.count(1)


def session_name() -> str:
    return f"{next(_numbers) % 1000}/abcd{next(_numbers):04d}"


class Answer:
    """One answer, its body read as it comes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, status: int, head: dict[str, str]):
        self.status = status
        self.headers = head
        self._reader = reader
        self._writer = writer
        self._buffer = b""
        self._is_over = head.get("content-length", "") == "0" or status == 204
        self.size = 0

    async def _more(self) -> None:
        async with asyncio.timeout(LIMIT_S):
            if "content-length" in self.headers:
                self._buffer += await self._reader.readexactly(int(self.headers["content-length"]))
                self._is_over = True
            elif self.headers.get("transfer-encoding") == "chunked":
                size = int((await self._reader.readuntil(b"\n")), 16)
                self._buffer += (await self._reader.readexactly(size + 2))[:-2]
                self._is_over = size == 0
            else:
                data = await self._reader.read(65_536)
                self._buffer += data
                self._is_over = not data

    async def line(self) -> str | None:
        """The next line of the body; None at its end."""
        while b"\n" not in self._buffer:
            if self._is_over:
                return None
            await self._more()
        line, _, self._buffer = self._buffer.partition(b"\n")
        self.size += len(line.decode().encode("utf-16-le")) // 2 + 1
        return line.decode()

    async def lines(self) -> list[str]:
        found = []
        while (line := await self.line()) is not None:
            found.append(line)
        return found

    async def body(self) -> bytes:
        while not self._is_over:
            await self._more()
        return self._buffer

    def abort(self) -> None:
        self._writer.transport.abort()


@asynccontextmanager
async def request(
    port: int,
    path: str,
    body: bytes = b"",
    *,
    method: str = "POST",
    headers: Mapping[str, str] | None = None,
    version: str = "1.1",
) -> AsyncIterator[Answer]:
    """Send one request on a connection of its own; the head of its answer has been read."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 24)
    fields = {"Host": "x", "Content-Length": str(len(body))} | dict(headers or {})
    head = f"{method} {path} HTTP/{version}\r\n" + "".join(f"{n}: {v}\r\n" for n, v in fields.items())
    try:
        writer.write(f"{head}\r\n".encode() + body)
        async with asyncio.timeout(LIMIT_S):
            raw = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        names = (line.split(": ", 1) for line in raw[1:] if line)
        yield Answer(reader, writer, int(raw[0].split()[1]), {name.lower(): value for name, value in names})
    finally:
        writer.transport.abort()


class XhrClient:
    """One session, streaming or polling; `ports` are used in turn, as a balancer would."""

    def __init__(self, *ports: int, is_poll: bool = False, path: str = "/pusher", query: str = "protocol=7") -> None:
        self.ports = itertools.cycle(ports)
        self.session = session_name()
        self.base = f"{path}/app/{KEY}/{self.session}"
        self.query = query
        self.is_poll = is_poll
        self.socket_id = ""
        self.streams = 0
        self.messages: list[dict[str, Any]] = []
        self.is_over = False
        self._open: Any = None
        self.answer: Answer | None = None

    async def __aenter__(self) -> Self:
        assert await self.line() == "o"
        greeting = await self.receive()
        if greeting["event"] == "pusher:connection_established":
            self.socket_id = json.loads(greeting["data"])["socket_id"]
        else:
            self.messages.insert(0, greeting)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self.is_poll and not self.is_over and (self.answer is None or self.answer.size):
            await self.ask()  # so that there is one to cut off, as there is with pusher-js
        await self.drop()

    async def drop(self) -> None:
        """Cut the present answer off, as pusher-js does to leave."""
        if self._open is not None:
            await self._open.__aexit__(None, None, None)
        self._open = self.answer = None

    async def ask(self) -> Answer:
        """Open the next stream or poll."""
        await self.drop()
        verb = "xhr" if self.is_poll else "xhr_streaming"
        self._open = request(next(self.ports), f"{self.base}/{verb}?{self.query}&t=1&n=1")
        self.answer = await self._open.__aenter__()
        self.streams += 1
        assert self.answer.status == 200, await self.answer.body()
        return self.answer

    async def line(self) -> str:
        """The next line, over as many answers as it takes."""
        while True:
            answer = self.answer or await self.ask()
            line = await answer.line()
            if line is not None:
                return line
            assert self.is_poll or answer.size > 262_144, "the stream ended before it was full"
            self.answer = None

    async def receive(self) -> dict[str, Any]:
        """The next message that is not a heartbeat; answers pings. Raises Closed."""
        while True:
            while self.messages:
                message = self.messages.pop(0)
                if message["event"] != "pusher:ping":
                    return message
                await self.send("pusher:pong", {})
            line = await self.line()
            if line[0] == "a":
                self.messages += [json.loads(message) for message in json.loads(line[1:])]
            elif line[0] == "c":
                self.is_over = True
                raise Closed(*json.loads(line[1:]))
            elif line[0] == "h" and not self.is_poll:
                await self.post(b"[]")

    async def expect(self, event: str) -> dict[str, Any]:
        message = await self.receive()
        assert message["event"] == event, message
        return message

    async def closed(self) -> Closed:
        try:
            while True:
                await self.receive()
        except Closed as closed:
            return closed

    async def post(self, body: bytes, *, status: int = 204) -> None:
        async with request(next(self.ports), f"{self.base}/xhr_send?t=1&n=2", body) as answer:
            assert answer.status == status, await answer.body()

    async def send(self, event: str, data: Any = None, **more: Any) -> None:
        await self.post(json.dumps([json.dumps({"event": event, "data": data} | more)]).encode())

    async def subscribe(self, channel: str, member: dict[str, Any] | None = None) -> dict[str, Any]:
        data: dict[str, Any] = {"channel": channel}
        if channel.startswith(("private-", "presence-")):
            if member is not None:
                data["channel_data"] = json.dumps(member)
            data["auth"] = sign_channel(KEY, SECRET, self.socket_id, channel, data.get("channel_data"))
        await self.send("pusher:subscribe", data)
        answer = await self.expect("pusher_internal:subscription_succeeded")
        assert answer["channel"] == channel
        decoded: dict[str, Any] = json.loads(answer["data"])
        return decoded
