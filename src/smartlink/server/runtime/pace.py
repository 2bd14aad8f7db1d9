"""Spreads sockets that send many frames or requests over several turns of the loop.

Each waits for its next turn, and the loop serves the others in between.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import Protocol

__all__ = ["FRAMES_AT_ONCE", "Pace"]

FRAMES_AT_ONCE = 32
"""Frames of one socket handled before others have their turn."""
TURN_S = 0.005
"""Time per turn of the loop for all that wait."""


class Paced(Protocol):
    """Has more to handle than fits one turn."""

    def take_turn(self) -> None:
        """Handle a few more, and request another turn if that is not all. Must not raise."""


class Pace:
    """Grants turns in the order of the requests."""

    def __init__(self) -> None:
        self._queue: deque[Paced] = deque()
        self._is_scheduled = False

    def request_turn(self, paced: Paced) -> None:
        """Let `paced` continue in a later turn; request one at a time."""
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
