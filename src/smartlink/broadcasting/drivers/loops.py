"""One client for each event loop: its connections can be used and closed only there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["PerLoop"]

Client = TypeVar("Client")


class PerLoop(Generic[Client]):
    """Keeps one client for each event loop, so that a driver outlives an `asyncio.run`: in scripts, tasks, tests.

    The first is built at once, so that `build` raises early.
    """

    def __init__(self, build: Callable[[], Client]) -> None:
        self._build = build
        self._spare: Client | None = build()
        self._clients: dict[asyncio.AbstractEventLoop, Client] = {}

    def here(self) -> Client:
        """Return the running loop's client."""
        loop = asyncio.get_running_loop()
        client = self._clients.get(loop)
        if client is None:
            # Clients of closed loops can no longer be closed.
            for other in [each for each in tuple(self._clients) if each.is_closed()]:
                self._clients.pop(other, None)
            spare, self._spare = self._spare, None
            client = self._clients[loop] = self._build() if spare is None else spare
        return client

    def leave(self) -> Client | None:
        """Remove and return the running loop's client, for closing; None if it has none."""
        spare, self._spare = self._spare, None
        return self._clients.pop(asyncio.get_running_loop(), spare)
