"""A double of Pusher's HTTP API on a real socket: verifies signatures independently, and misbehaves on demand."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from kit.tcp import Listener

__all__ = ["HANG", "LOSE_THE_ANSWER", "Call", "PusherService", "pusher_service"]

HANG = "hang"
LOSE_THE_ANSWER = "take what was sent, then die without an answer"

Answer = int | bytes | str


@dataclass(frozen=True)
class Call:
    """One signed call, as it came in."""

    path: str
    headers: dict[str, str]
    events: list[dict[str, Any]]

    @property
    def idempotency_key(self) -> str | None:
        return self.headers.get("idempotency-key")


class PusherService:
    """`answers` decides about each call: a status, raw bytes instead of HTTP, `HANG` or `LOSE_THE_ANSWER`."""

    app_id, key, secret = "77", "a-key", "a-secret"

    def __init__(self) -> None:
        self.port = 0
        self.calls: list[Call] = []
        self.taken: list[dict[str, Any]] = []
        self.connections = 0
        self.answers: Callable[[Call], Answer] = lambda _: 200
        self.hold: asyncio.Event | None = None
        """Calls that come now are answered when it is set; `held` counts them."""
        self.held = 0
        self._listener = Listener(self._serve)

    async def start(self) -> None:
        """Listen; after a `stop` again on the same port."""
        await self._listener.start(self.port)
        self.port = self._listener.port

    async def stop(self) -> None:
        """Go away, cutting every connection."""
        await self._listener.stop()

    def payloads(self, channel: str | None = None) -> list[dict[str, Any]]:
        """The payloads taken, in order; of one channel, or of all."""
        return [json.loads(e["data"]) for e in self.taken if channel is None or e["channel"] == channel]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        while await self._one_call(reader, writer):
            pass

    async def _one_call(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("ascii")
        request_line, *lines = head.rstrip().split("\r\n")
        method, target, _ = request_line.split(" ")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        if method == "GET":
            writer.write(_response(404, b'{"error":"no such call"}'))
            return True
        body = await reader.readexactly(int(headers["content-length"]))
        if not self._is_signed(method, target, body):
            writer.write(_response(401, b'{"error":"bad signature"}'))
            return True
        call = Call(urlsplit(target).path, headers, _events(target, json.loads(body)))
        self.calls.append(call)
        if self.hold is not None:
            self.held += 1
            await self.hold.wait()
        return await self._answer(call, self.answers(call), writer)

    async def _answer(self, call: Call, answer: Answer, writer: asyncio.StreamWriter) -> bool:
        if answer == HANG:
            await asyncio.Event().wait()
        if answer in (200, LOSE_THE_ANSWER):
            self.taken.extend(call.events)
        if answer == LOSE_THE_ANSWER:
            return False
        writer.write(answer if isinstance(answer, bytes) else _response(int(answer), b"{}"))
        await writer.drain()
        return True

    def _is_signed(self, method: str, target: str, body: bytes) -> bool:
        split = urlsplit(target)
        pairs = dict(parse_qsl(split.query, keep_blank_values=True))
        signature = pairs.pop("auth_signature")
        text = "\n".join([method, split.path, "&".join(f"{k}={pairs[k]}" for k in sorted(pairs))])
        expected = hmac.new(self.secret.encode(), text.encode(), hashlib.sha256).hexdigest()
        return (
            hmac.compare_digest(signature, expected)
            and pairs["auth_key"] == self.key
            and pairs["auth_version"] == "1.0"
            and pairs["body_md5"] == hashlib.md5(body).hexdigest()
        )


def _events(target: str, message: dict[str, Any]) -> list[dict[str, Any]]:
    """The events of a call, one for each channel, in order."""
    if urlsplit(target).path.endswith("/batch_events"):
        events: list[dict[str, Any]] = message["batch"]
        return events
    channels = message.pop("channels")
    return [{**message, "channel": channel} for channel in channels]


def _response(status: int, body: bytes) -> bytes:
    head = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


@asynccontextmanager
async def pusher_service() -> AsyncIterator[PusherService]:
    """A service on a free port."""
    service = PusherService()
    await service.start()
    try:
        yield service
    finally:
        await service.stop()
