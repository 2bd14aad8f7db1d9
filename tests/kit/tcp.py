"""A TCP listener for doubles of outside services."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable

__all__ = ["Listener"]

_TURNS_OF_AN_ACCEPT = 8
"""How many turns of the loop asyncio needs at most from accepting a connection to calling `serve`."""


class Listener:
    """Serves each connection by `serve`, and ends what is left of it afterwards. `stop` leaves no connection open, not
    even one that was accepted a moment before."""

    def __init__(self, serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[object]]) -> None:
        self.port = 0
        self._serve = serve
        self._server: asyncio.Server | None = None
        self._lines: set[asyncio.Task[None]] = set()

    async def start(self, port: int = 0, tls: ssl.SSLContext | None = None) -> None:
        """Listen on `port`, or on a free one."""
        self._server = await asyncio.start_server(self._accepted, "127.0.0.1", port, ssl=tls)
        self.port = self._server.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        """End every connection; new ones are taken."""
        lines = tuple(self._lines)
        for line in lines:
            line.cancel()
        if lines:
            await asyncio.wait(lines)
        await asyncio.sleep(0)

    async def stop(self) -> None:
        """Take no connections any more, and end those there are."""
        if self._server is None:
            return
        self._server.close()
        self._server = None
        for _ in range(_TURNS_OF_AN_ACCEPT):
            await asyncio.sleep(0)
        await self.cut()

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = asyncio.current_task()
        assert line is not None
        self._lines.add(line)
        try:
            await self._serve(reader, writer)
            writer.close()
            await writer.wait_closed()
        except (asyncio.IncompleteReadError, OSError, asyncio.CancelledError):
            pass  # Either end hung up, or the connection was cut.
        finally:
            writer.transport.abort()
            self._lines.discard(line)
