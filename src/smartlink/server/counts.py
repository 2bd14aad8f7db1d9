"""Telling subscribers how many they are, seldom on channels where many come and go."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

__all__ = ["PACED_ABOVE", "PACE_S", "CountPace"]

PACED_ABOVE = 100
"""Subscribers above which a count is told at most every `PACE_S`."""
PACE_S = 5.0
SPREAD = 0.1
"""By how much of the pace nodes may differ, so that one speaks first and the others hear it."""


class CountPace:
    """Decides when the count of a channel is told: at once, or as the last one of a busy time.

    `tell` is called with app id, channel and the count, or None where it is to be asked for: time has gone by.
    """

    def __init__(self, tell: Callable[[str, str, int | None], None], pace_s: float = PACE_S) -> None:
        self._tell = tell
        self._pace_s = pace_s
        self._resting: dict[tuple[str, str], asyncio.TimerHandle] = {}
        """Channels whose count was told less than the pace ago."""
        self._changed: set[tuple[str, str]] = set()
        """Those of them whose count has changed since."""

    def changed(self, app_id: str, channel: str, count: int) -> None:
        """The count of a channel has changed."""
        key = (app_id, channel)
        if count <= PACED_ABOVE:
            self._changed.discard(key)
            self._tell(app_id, channel, count)
        elif key in self._resting:
            self._changed.add(key)
        else:
            self._rest(key)
            self._tell(app_id, channel, count)

    def heard(self, app_id: str, channel: str, count: int) -> None:
        """A node, perhaps this one, has told this count. What changed here since may not be in it."""
        if count > PACED_ABOVE:
            key = (app_id, channel)
            if (timer := self._resting.get(key)) is not None:
                timer.cancel()
            self._rest(key)

    def stop(self) -> None:
        for timer in self._resting.values():
            timer.cancel()
        self._resting.clear()
        self._changed.clear()

    def _rest(self, key: tuple[str, str]) -> None:
        pace_s = self._pace_s * random.uniform(1.0, 1.0 + SPREAD)  # noqa: S311 — no secret
        self._resting[key] = asyncio.get_running_loop().call_later(pace_s, self._rested, key)

    def _rested(self, key: tuple[str, str]) -> None:
        del self._resting[key]
        if key in self._changed:
            self._changed.discard(key)
            self._rest(key)
            self._tell(*key, None)
