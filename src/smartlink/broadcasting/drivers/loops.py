"""Clients that belong to an event loop: their connections can be used and closed there alone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["PerLoop"]

Client = TypeVar("Client")


class PerLoop(Generic[Client]):
    """One client for each loop that asks, so that a driver outlives an `asyncio.run`: in scripts, tasks, tests.

    The first is built at once: what cannot be built is told then.
    """

    def __init__(self, build: Callable[[], Client]) -> None:
        self._build = build
        self._spare: Client | None = build()
        self._clients: dict[asyncio.AbstractEventLoop, Client] = {}

    def here(self) -> Client:
        """The client of the loop that runs."""
        loop = asyncio.get_running_loop()
        client = self._clients.get(loop)
        if client is None:
            # Those of loops that have ended cannot be closed any more.
            for other in [each for each in tuple(self._clients) if each.is_closed()]:
                self._clients.pop(other, None)
            spare, self._spare = self._spare, None
            client = self._clients[loop] = self._build() if spare is None else spare
        return client

    def leave(self) -> Client | None:
        """The client of the loop that runs, to be closed; None when it has none."""
        spare, self._spare = self._spare, None
        return self._clients.pop(asyncio.get_running_loop(), spare)
