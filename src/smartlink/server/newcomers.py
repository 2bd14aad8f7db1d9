"""Who was told a state a moment ago: comings and goings that it shows already are not told to them again.

What a state shows may still be on its way, from the node where it happened. Its number says so (`roster.base.State`).
"""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Sequence

from smartlink.server.hub import Connection

__all__ = ["Newcomers"]

KNOWN_S = 10.0
"""How long a coming or going may be on its way; what is later is told twice."""
SWEEP_S = 1.0

_Key = tuple[str, str]


class Newcomers:
    """By channel, connections that were told its state lately. Plain and synchronous."""

    def __init__(self, known_s: float = KNOWN_S) -> None:
        self._known_s = known_s
        self._told: dict[_Key, list[tuple[int, int, Connection]]] = {}
        """The version of the state, and a number that parts those of one version; in this order."""
        self._until: deque[tuple[float, _Key, tuple[int, int, Connection]]] = deque()
        self._count = 0
        self._timer: asyncio.TimerHandle | None = None

    def told(self, app_id: str, channel: str, version: int, connection: Connection) -> None:
        """The connection has been told the state of that version."""
        if not version:
            return
        self._count += 1
        entry = (version, self._count, connection)
        insort(self._told.setdefault((app_id, channel), []), entry)
        self._until.append((time.monotonic() + self._known_s, (app_id, channel), entry))
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(SWEEP_S, self._sweep)

    def knowing(self, app_id: str, channel: str, version: int) -> Sequence[Connection]:
        """Those who know already what has this number."""
        told = self._told.get((app_id, channel))
        if not version or told is None:
            return ()
        return [connection for _, _, connection in told[bisect_left(told, (version,)) :]]

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._told.clear()
        self._until.clear()

    def _sweep(self) -> None:
        now = time.monotonic()
        while self._until and self._until[0][0] <= now:
            _, key, entry = self._until.popleft()
            told = self._told[key]
            del told[bisect_left(told, entry[:2])]
            if not told:
                del self._told[key]
        self._timer = asyncio.get_running_loop().call_later(SWEEP_S, self._sweep) if self._until else None
