"""Reads a channel's state again shortly after a change was announced.

What two nodes announce at the same moment may arrive in the opposite order, and the older announcement would be the
last. Only the presence store knows which one holds.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["RECHECK_S", "Rechecker"]

RECHECK_S = 0.5
"""Longest time between the first change and the recheck; the shortest is half of it, so that nodes take turns."""

T = TypeVar("T")
_Key = tuple[str, str]


class Rechecker(Generic[T]):
    """Collects what was noted, by app id and name, and calls `recheck` once for each key. Plain and synchronous.

    `recheck` gets the key and what was last noted for it; the key is free again by then.
    """

    def __init__(self, recheck: Callable[[_Key, T], None], recheck_s: float = RECHECK_S) -> None:
        self._recheck = recheck
        self._recheck_s = recheck_s
        self._noted: dict[_Key, T] = {}
        self._timers: dict[_Key, asyncio.TimerHandle] = {}

    def __len__(self) -> int:
        return len(self._noted)

    def __contains__(self, key: object) -> bool:
        return key in self._noted

    def get(self, key: _Key) -> T | None:
        """Return what awaits its recheck, or None."""
        return self._noted.get(key)

    def note(self, key: _Key, value: T) -> T:
        """Keep `value`, replacing what was noted before, and schedule the recheck unless there is one. Returns it."""
        self._noted[key] = value
        if key not in self._timers:
            recheck_s = self._recheck_s * random.uniform(0.5, 1.0)  # noqa: S311 — no secret
            self._timers[key] = asyncio.get_running_loop().call_later(recheck_s, self._run, key)
        return value

    def stop(self) -> None:
        """Cancel all rechecks."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        self._noted.clear()

    def _run(self, key: _Key) -> None:
        del self._timers[key]
        self._recheck(key, self._noted.pop(key))
