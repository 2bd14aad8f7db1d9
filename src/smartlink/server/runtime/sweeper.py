"""One clock and one timer for all connections: pings silent ones, ends overdue ones."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Protocol

from smartlink.background import Background, ended

__all__ = ["Sweeper", "Watched"]

EVERY_S = 1.0
AT_ONCE = 1_000
"""Connections swept before the loop serves its sockets again."""


class Watched(Protocol):
    """Swept once a second. Must not raise."""

    def sweep(self, now: float) -> None: ...


class Sweeper:
    """Sweeps every connection once a second."""

    def __init__(self, now: Callable[[], float] = time.monotonic, background: Background | None = None) -> None:
        self._background = background or Background()
        self.now = now
        self._sources: list[Iterable[Watched]] = []
        self._others: set[Watched] = set()
        self._emptied = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def add_source(self, source: Iterable[Watched]) -> None:
        """Sweep all that `source` yields, iterated anew each second."""
        self._sources.append(source)

    def add(self, watched: Watched) -> None:
        """Sweep one more, until `discard`."""
        self._others.add(watched)

    def discard(self, watched: Watched) -> None:
        self._others.discard(watched)
        if not self._others:
            self._emptied.set()

    async def wait_empty(self) -> None:
        """Wait until every closing connection is closed."""
        while self._others:
            self._emptied.clear()
            await self._emptied.wait()

    def start(self) -> None:
        self._task = self._background.start("sweeping connections", self._run())

    async def stop(self) -> None:
        await ended(self._task)

    def turn(self) -> None:
        """Sweep everything once."""
        for _ in self._round():
            pass

    def _round(self) -> Iterator[None]:
        """Sweep in steps: between two of them connections may come and go."""
        now = self.now()
        others = (watched for watched in tuple(self._others) if watched in self._others)
        for number, watched in enumerate(chain(*self._sources, others), 1):
            watched.sweep(now)
            if number % AT_ONCE == 0:
                yield

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(EVERY_S)
            for _ in self._round():
                await asyncio.sleep(0)
