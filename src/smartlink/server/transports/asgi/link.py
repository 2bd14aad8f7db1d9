"""The link of a connection that another server has accepted, and passes on as ASGI messages.

Bytes in and out are those of a socket: a request's head and body, then frames. Output waits in a queue for the task
that sends it, since an ASGI server is awaited.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator

from smartlink.server.net.link import Handler

__all__ = ["ScopeLink"]

HIGH_BYTES = 65_536
"""Queued bytes from which a peer counts as behind."""


class ScopeLink:
    """A `Link` for one ASGI scope. `aborted` is set when it is closed at once."""

    descriptor = -1

    def __init__(self, peer: str) -> None:
        self.handler: Handler
        self.peer = peer
        self.buffered = 0
        self.aborted = asyncio.Event()
        self._queue: deque[bytes] = deque()
        self._has_output = asyncio.Event()
        self._may_read = asyncio.Event()
        self._may_read.set()
        self._is_behind = self._is_finishing = False

    # The port

    def write(self, data: bytes) -> None:
        if self.aborted.is_set() or self._is_finishing or not data:
            return
        self._queue.append(data)
        self.buffered += len(data)
        self._has_output.set()
        if not self._is_behind and self.buffered > HIGH_BYTES:
            self._is_behind = True
            self.handler.on_backlog(-1)

    def drop_queued(self) -> None:
        """Drop what has not been passed to the ASGI server."""
        self.buffered -= sum(map(len, self._queue))
        self._queue.clear()

    def pause(self) -> None:
        if not self._is_finishing:
            self._may_read.clear()

    def resume(self) -> None:
        self._may_read.set()

    def finish(self) -> None:
        self._is_finishing = True
        self._has_output.set()
        self._may_read.set()  # what still comes is ignored

    def abort(self) -> None:
        if self.aborted.is_set():
            return
        self.aborted.set()
        self._queue.clear()
        self.buffered = 0
        self._has_output.set()
        self.handler.on_closed(-1)

    # The ASGI server's side

    async def readable(self) -> None:
        """Wait until the handler wants more input."""
        await self._may_read.wait()

    async def output(self) -> AsyncIterator[bytes]:
        """Yield what was written, a piece at a time, until the link has finished or is aborted.

        A piece counts as sent when the next one is asked for.
        """
        while not self.aborted.is_set():
            if self._queue:
                data = self._queue.popleft()
                yield data
                self._on_sent(len(data))
            elif self._is_finishing:
                return
            else:
                self._has_output.clear()
                await self._has_output.wait()

    def _on_sent(self, size: int) -> None:
        if self.aborted.is_set():
            return
        self.buffered -= size
        if self._is_behind and not self._queue:
            self._is_behind = False
            self.handler.on_drained()
