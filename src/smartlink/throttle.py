"""Limits how often the same thing is logged, so that a lasting fault does not flood the log."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["Throttle"]


class Throttle:
    """Allows each key once per `period_s` seconds. Keys are kept for good, so there should be few of them."""

    def __init__(self, period_s: float = 60.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._period_s = period_s
        self._clock = clock
        self._allowed_at: dict[str, float] = {}

    def allows(self, key: str = "") -> bool:
        """Return whether `key` is due, and if so count it as done now."""
        now = self._clock()
        last = self._allowed_at.get(key)
        if last is not None and now - last < self._period_s:
            return False
        self._allowed_at[key] = now
        return True
