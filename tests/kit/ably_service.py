"""A double of Ably's REST API on a real socket: publishing to a channel, by its documentation.

Checks the key, takes messages, drops repeats of an id, and answers as Ably does: 201 with ids, or an `error` object.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import unquote

from kit.tcp import Listener

__all__ = ["AblyService", "ably_service"]


class AblyService:
    """`answers` decides about each call: a status, or raw bytes instead of HTTP."""

    key = "app.key:secret"

    def __init__(self) -> None:
        self.port = 0
        self.taken: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self.answers: Callable[[], int | bytes] = lambda: 201
        self._ids: set[tuple[str, str]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, until the client closes it."""
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("ascii")
            request_line, *lines = head.rstrip().split("\r\n")
            method, path, _ = request_line.split(" ")
            headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
            body = await reader.readexactly(int(headers["content-length"]))
            writer.write(self._answered(method, path, headers, body))
            await writer.drain()

    def _answered(self, method: str, path: str, headers: dict[str, str], body: bytes) -> bytes:
        expected = "Basic " + base64.b64encode(self.key.encode()).decode()
        if headers.get("authorization") != expected:
            return _response(401, {"error": {"code": 40101, "statusCode": 401, "message": "Invalid credentials"}})
        segments = path.split("/")
        if method != "POST" or len(segments) != 4 or segments[1] != "channels" or segments[3] != "messages":
            return _response(404, {"error": {"code": 40400, "statusCode": 404, "message": "not found"}})
        answer = self.answers()
        if isinstance(answer, bytes):
            return answer
        if answer >= 400:
            return _response(answer, {"error": {"code": answer * 100, "statusCode": answer, "message": "no"}})
        self.paths.append(path)
        self._take(unquote(segments[2]), json.loads(body))
        return _response(answer, {"channel": unquote(segments[2]), "messageId": "x:0"})

    def _take(self, channel: str, message: dict[str, Any]) -> None:
        message_id = message.get("id")
        if message_id is not None:
            if (channel, message_id) in self._ids:
                return
            self._ids.add((channel, message_id))
        self.taken.append({"channel": channel, **message})


def _response(status: int, body: dict[str, Any]) -> bytes:
    content = json.dumps(body).encode()
    head = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {len(content)}\r\n\r\n"
    return head.encode() + content


@asynccontextmanager
async def ably_service() -> AsyncIterator[AblyService]:
    """A service on a free port."""
    service = AblyService()
    listener = Listener(service.serve)
    await listener.start()
    service.port = listener.port
    try:
        yield service
    finally:
        await listener.stop()
