"""Clients of the library `smartlink.client`, and what is published to them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from kit.realtime import APP_ID, KEY, SECRET, call
from kit.tcp import Listener
from kit.waiting import LIMIT_S
from smartlink.client import Client, Secret, Stream

__all__ = ["QUICK", "Application", "a_client", "application", "publish", "taken"]

QUICK = (0.02, 0.1)
"""Pauses between connections, in seconds."""


def a_client(port: int, **options: Any) -> Client:
    """A client that may do everything, as user 7."""
    given = {"auth": Secret(KEY, SECRET, user_id="7", user_info={"name": "Ana"}), "reconnect_s": QUICK} | options
    return Client(f"ws://127.0.0.1:{port}", KEY, proxy=None, **given)


async def publish(port: int, channel: str, data: Any, name: str = "news", **more: Any) -> None:
    """Publish `data` as JSON."""
    event = {"name": name, "channel": channel, "data": json.dumps(data)} | more
    answer = await call(port, "POST", f"/apps/{APP_ID}/events", json.dumps(event).encode())
    assert answer.status_code == 200, answer.text


async def taken(stream: Stream[Any], count: int) -> list[Any]:
    """The next items, each as it is, events as their data."""
    items = [await stream.get(LIMIT_S) for _ in range(count)]
    return [getattr(item, "data", item) for item in items]


class Application:
    """An application's authorization endpoint: what was asked, and what it answers."""

    def __init__(self) -> None:
        self.port = 0
        self.requests: list[str] = []
        """Heads and bodies."""
        self.answers: list[tuple[int, bytes]] = []
        """Given first, in order; then `answer` is asked."""
        self.answer: Any = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/broadcasting/auth"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            length = next(int(line[15:]) for line in head.splitlines() if line.lower().startswith("content-length:"))
            body = (await reader.readexactly(length)).decode()
            self.requests.append(head + body)
            status, content = self.answers.pop(0) if self.answers else self.answer(body)
            writer.write(f"HTTP/1.1 {status} X\r\ncontent-length: {len(content)}\r\n\r\n".encode() + content)
            await writer.drain()


@asynccontextmanager
async def application() -> AsyncIterator[Application]:
    """An endpoint on a free port."""
    running = Application()
    listener = Listener(running.serve)
    await listener.start()
    running.port = listener.port
    try:
        yield running
    finally:
        await listener.stop()
