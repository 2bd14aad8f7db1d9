"""One clock and one timer for all connections: asks about silence, ends what lingers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Protocol

__all__ = ["Watch", "Watched"]

EVERY_S = 1.0


class Watched(Protocol):
    """What is looked after once a second. Must not raise."""

    def look_after(self, now: float) -> None: ...


class Watch:
    """Looks after every connection once a second."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self.now = now
        self._sources: list[Iterable[Watched]] = []
        self._others: set[Watched] = set()
        self._emptied = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def over(self, source: Iterable[Watched]) -> None:
        """Look after all that `source` yields, anew each second."""
        self._sources.append(source)

    def linger(self, watched: Watched) -> None:
        """Look after one more, until `forget`."""
        self._others.add(watched)

    def forget(self, watched: Watched) -> None:
        self._others.discard(watched)
        if not self._others:
            self._emptied.set()

    async def nothing_lingers(self) -> None:
        """Wait until every connection that is being ended has ended."""
        while self._others:
            self._emptied.clear()
            await self._emptied.wait()

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))

    def turn(self) -> None:
        """One round over everything."""
        now = self.now()
        for source in self._sources:
            for watched in source:
                watched.look_after(now)
        for watched in tuple(self._others):
            watched.look_after(now)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(EVERY_S)
            self.turn()
