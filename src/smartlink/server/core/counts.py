"""Telling subscribers how many they are, seldom on channels where many come and go."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["CHECK_S", "PACED_ABOVE", "PACE_S", "CountPace"]

PACED_ABOVE = 100
"""Subscribers above which a count is told at most every `PACE_S`."""
PACE_S = 5.0
SPREAD = 0.1
"""By how much of the pace nodes may differ, so that one speaks first and the others hear it."""
CHECK_S = 0.5
"""How long at most after a change the count that was heard last is compared with the true one; half of it at least."""


@dataclass(slots=True)
class _Check:
    """A count that changed here a moment ago."""

    count: int
    heard: int | None = None
    """What was told on the channel since, by whichever node, at last."""
    has_differed: bool = False
    """Whether something else was told at any time."""
    has_changed_again: bool = False


class CountPace:
    """Decides when the count of a channel is told: at once, or as the last one of a busy time.

    What two nodes tell at the same moment may arrive in the other order than it became true in, and the older count
    would be the last word. So each looks once more, shortly after a change of its own.

    `tell` is called with app id, channel and the count, or None where it is to be asked for, as time has gone by; and
    with the count that needs not be told, as it was heard last.
    """

    def __init__(
        self,
        tell: Callable[[str, str, int | None, int | None], None],
        pace_s: float = PACE_S,
        check_s: float = CHECK_S,
    ) -> None:
        self._tell = tell
        self._pace_s = pace_s
        self._check_s = check_s
        self._resting: dict[tuple[str, str], asyncio.TimerHandle] = {}
        """Channels whose count was told less than the pace ago."""
        self._changed: set[tuple[str, str]] = set()
        """Those of them whose count has changed since."""
        self._checks: dict[tuple[str, str], _Check] = {}
        self._timers: dict[tuple[str, str], asyncio.TimerHandle] = {}

    def changed(self, app_id: str, channel: str, count: int) -> None:
        """The count of a channel has changed."""
        key = (app_id, channel)
        self._check_later(key, count)
        if count <= PACED_ABOVE:
            self._changed.discard(key)
            self._tell(app_id, channel, count, None)
        elif key in self._resting:
            self._changed.add(key)
        else:
            self._rest(key)
            self._tell(app_id, channel, count, None)

    def heard(self, app_id: str, channel: str, count: int) -> None:
        """A node, perhaps this one, has told this count. What changed here since may not be in it."""
        key = (app_id, channel)
        if (check := self._checks.get(key)) is not None:
            check.heard = count
            check.has_differed |= count != check.count
        if count > PACED_ABOVE:
            if (timer := self._resting.get(key)) is not None:
                timer.cancel()
            self._rest(key)

    def stop(self) -> None:
        for timer in (*self._resting.values(), *self._timers.values()):
            timer.cancel()
        self._resting.clear()
        self._changed.clear()
        self._checks.clear()
        self._timers.clear()

    def _check_later(self, key: tuple[str, str], count: int) -> None:
        check = self._checks.get(key)
        if check is None:
            self._checks[key] = _Check(count)
            self._set_timer(key)
        else:
            check.count = count
            check.has_changed_again = True

    def _set_timer(self, key: tuple[str, str]) -> None:
        # One node puts it right first, and the others hear it.
        check_s = self._check_s * random.uniform(0.5, 1.0)  # noqa: S311 — no secret
        self._timers[key] = asyncio.get_running_loop().call_later(check_s, self._check, key)

    def _check(self, key: tuple[str, str]) -> None:
        check = self._checks[key]
        if check.has_changed_again:
            check.has_changed_again = False
            self._set_timer(key)
            return
        del self._checks[key], self._timers[key]
        if key not in self._resting:
            # Nothing is heard where nobody is on the channel any more: then what was told from here counts.
            self._tell(*key, None, check.count if check.heard is None else check.heard)
        elif check.has_differed:
            self._changed.add(key)

    def _rest(self, key: tuple[str, str]) -> None:
        pace_s = self._pace_s * random.uniform(1.0, 1.0 + SPREAD)  # noqa: S311 — no secret
        self._resting[key] = asyncio.get_running_loop().call_later(pace_s, self._rested, key)

    def _rested(self, key: tuple[str, str]) -> None:
        del self._resting[key]
        if key in self._changed:
            self._changed.discard(key)
            self._rest(key)
            self._tell(*key, None, None)
