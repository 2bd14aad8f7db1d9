"""Sends subscribers their number: at once, or at a slower pace on channels where many come and go."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass

from smartlink.server.core.rechecker import RECHECK_S, Rechecker

__all__ = ["PACED_ABOVE", "PACE_S", "CountPace"]

PACED_ABOVE = 100
"""Subscribers above which a count is sent at most every `PACE_S`."""
PACE_S = 5.0
SPREAD = 0.1
"""Share of the pace by which nodes may differ, so that one sends first and the others receive it."""

_Key = tuple[str, str]


@dataclass(slots=True)
class _Change:
    """A count that changed here a moment ago."""

    count: int
    received: int | None = None
    """The count last received on the channel since, from any node."""
    has_differed: bool = False
    """Whether any other count was received."""
    has_changed_again: bool = False


class CountPace:
    """Decides when to send the count of a channel: at once, or as the last one of a busy period.

    A recheck follows every change of this node's own (see `rechecker`).

    `send(app_id, channel, count, received)`: a `count` of None is read from the presence store at that
    moment, and need not be sent if it equals `received`.
    """

    def __init__(
        self,
        send: Callable[[str, str, int | None, int | None], None],
        pace_s: float = PACE_S,
        recheck_s: float = RECHECK_S,
    ) -> None:
        self._send = send
        self._pace_s = pace_s
        self._resting: dict[_Key, asyncio.TimerHandle] = {}
        """Channels whose count was sent less than one pace ago."""
        self._changed: set[_Key] = set()
        """Resting channels whose count has changed since."""
        self._rechecks: Rechecker[_Change] = Rechecker(self._recheck, recheck_s)

    def changed(self, app_id: str, channel: str, count: int) -> None:
        """Note that the count of a channel has changed on this node, and send it when it is time."""
        key = (app_id, channel)
        if (change := self._rechecks.get(key)) is None:
            self._rechecks.note(key, _Change(count))
        else:
            change.count = count
            change.has_changed_again = True
        if count <= PACED_ABOVE:
            self._changed.discard(key)
            self._send(app_id, channel, count, None)
        elif key in self._resting:
            self._changed.add(key)
        else:
            self._rest(key)
            self._send(app_id, channel, count, None)

    def note(self, app_id: str, channel: str, count: int) -> None:
        """Note the count that a node, perhaps this one, sent. It may lack what changed here since."""
        key = (app_id, channel)
        if (change := self._rechecks.get(key)) is not None:
            change.received = count
            change.has_differed |= count != change.count
        if count > PACED_ABOVE:
            if (timer := self._resting.get(key)) is not None:
                timer.cancel()
            self._rest(key)

    def stop(self) -> None:
        """Cancel what is scheduled."""
        for timer in self._resting.values():
            timer.cancel()
        self._resting.clear()
        self._changed.clear()
        self._rechecks.stop()

    def _recheck(self, key: _Key, change: _Change) -> None:
        if change.has_changed_again:
            change.has_changed_again = False
            self._rechecks.note(key, change)
        elif key not in self._resting:
            # A node without subscribers receives nothing on the channel: then compare with what it sent itself.
            self._send(*key, None, change.count if change.received is None else change.received)
        elif change.has_differed:
            self._changed.add(key)

    def _rest(self, key: _Key) -> None:
        pace_s = self._pace_s * random.uniform(1.0, 1.0 + SPREAD)  # noqa: S311 — no secret
        self._resting[key] = asyncio.get_running_loop().call_later(pace_s, self._rested, key)

    def _rested(self, key: _Key) -> None:
        del self._resting[key]
        if key in self._changed:
            self._changed.discard(key)
            self._rest(key)
            self._send(*key, None, None)
