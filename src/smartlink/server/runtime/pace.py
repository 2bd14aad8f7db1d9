"""Turns for those who send more frames, or requests, than one turn may take.

Each waits for the next one, and the loop looks after the others in between.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import Protocol

__all__ = ["FRAMES_AT_ONCE", "Pace"]

FRAMES_AT_ONCE = 32
"""Frames of one socket that are acted on before others have their turn."""
TURN_S = 0.005
"""Time that all who wait may take of one turn of the loop."""


class Paced(Protocol):
    """Has more to act on than was its turn."""

    def take_turn(self) -> None:
        """Act on a few more, and wait for another turn where that is not all. Must not raise."""


class Pace:
    """Hands out turns in the order in which they were asked for."""

    def __init__(self) -> None:
        self._queue: deque[Paced] = deque()
        self._is_scheduled = False

    def request_turn(self, paced: Paced) -> None:
        """Have `paced` go on in a turn to come; ask once at a time."""
        self._queue.append(paced)
        if not self._is_scheduled:
            self._schedule()

    def _schedule(self) -> None:
        self._is_scheduled = True
        asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        self._is_scheduled = False
        until = time.perf_counter() + TURN_S
        for _ in range(len(self._queue)):
            self._queue.popleft().take_turn()
            if time.perf_counter() > until:
                break
        if self._queue and not self._is_scheduled:
            self._schedule()
