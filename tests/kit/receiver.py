"""A receiver of webhooks on a real socket, which verifies every signature and answers as configured."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from kit.realtime import KEY, SECRET
from kit.tcp import Listener
from smartlink.protocol.signing import verify_webhook

HANG = 0
"""Answer nothing until the caller goes away."""
DROP = -1
"""Close without an answer."""


@dataclass
class Receiver:
    """What came, and what is answered: the next of `answers`, then `then`."""

    port: int = 0
    answers: list[int] = field(default_factory=list)
    then: int = 200
    headers: str = ""
    body: bytes = b""
    posts: list[dict[str, Any]] = field(default_factory=list)
    """Bodies that were answered with 2xx, and as `key` whose they were."""
    refused: list[dict[str, Any]] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    """Request lines and headers."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    @property
    def events(self) -> list[dict[str, Any]]:
        return [event for post in self.posts for event in post["events"]]

    @property
    def names(self) -> list[str]:
        return [event["name"] for event in self.events]


@asynccontextmanager
async def receiver(*answers: int, secrets: Mapping[str, str] | None = None, **more: Any) -> AsyncIterator[Receiver]:
    """A receiver that knows the `secrets` of these keys."""
    secrets = secrets or {KEY: SECRET}
    target = Receiver(answers=list(answers), **more)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            target.requests.append(head)
            fields = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:-2])
            body = await reader.readexactly(int(fields["content-length"]))
            key = fields["x-pusher-key"]
            assert fields["content-type"] == "application/json"
            assert verify_webhook(secrets[key], body, fields["x-pusher-signature"])
            status = target.answers.pop(0) if target.answers else target.then
            post = json.loads(body) | {"key": key}
            (target.posts if 200 <= status < 300 else target.refused).append(post)
            if status == HANG:
                await reader.read()
            if status in (HANG, DROP):
                writer.transport.abort()
                return
            length = len(target.body)
            writer.write(f"HTTP/1.1 {status} X\r\n{target.headers}Content-Length: {length}\r\n\r\n".encode())
            writer.write(target.body)

    listener = Listener(serve)
    await listener.start(target.port)
    target.port = listener.port
    try:
        yield target
    finally:
        await listener.stop()
