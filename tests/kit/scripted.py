"""A WebSocket server that says what a test tells it to, right or wrong."""

from __future__ import annotations

import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

__all__ = ["Scripted", "established", "scripted"]


def established(**more: Any) -> str:
    """The greeting."""
    data = json.dumps({"socket_id": "1.1", "activity_timeout": 30} | more)
    return json.dumps({"event": "pusher:connection_established", "data": data})


class Scripted:
    """`port`; `paths` of the connections there were; `heard` what clients have sent, by event."""

    def __init__(self) -> None:
        self.port = 0
        self.paths: list[str] = []
        self.heard: list[dict[str, Any]] = []

    async def until_heard(self, socket: ServerConnection, event: str) -> dict[str, Any]:
        """Read on until a client has sent this."""
        while True:
            message: dict[str, Any] = json.loads(await socket.recv())
            self.heard.append(message)
            if message["event"] == event:
                return message


@asynccontextmanager
async def scripted(
    play: Callable[[Scripted, ServerConnection], Awaitable[None]], tls: ssl.SSLContext | None = None
) -> AsyncIterator[Scripted]:
    """Call `play` for each connection, and close it afterwards."""
    running = Scripted()

    async def each(socket: ServerConnection) -> None:
        assert socket.request is not None
        running.paths.append(socket.request.path)
        with contextlib.suppress(ConnectionClosed):  # The client has gone.
            await play(running, socket)

    async with serve(each, "127.0.0.1", 0, ssl=tls, ping_interval=None, close_timeout=0.1) as server:
        running.port = server.sockets[0].getsockname()[1]
        yield running
