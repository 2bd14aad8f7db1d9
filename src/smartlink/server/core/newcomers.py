"""Who was told a state a moment ago: comings and goings that it shows already are not told to them again.

What a state shows may still be on its way, from the node where it happened. Its number says so (`presence.base.State`).
"""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_left, insort
from collections.abc import Sequence

from smartlink.server.core.hub import Connection

__all__ = ["Newcomers"]

KNOWN_S = 10.0
"""How long a coming or going may be on its way; what is later is told twice."""
SWEEP_S = 1.0

_Key = tuple[str, str]
_Entry = tuple[int, int, Connection]
"""The version of the state, a number that parts those of one version, and who was told."""


class Newcomers:
    """By channel, connections that were told its state lately, each with the last one. Plain and synchronous.

    Holds no connection that has ended, nor one that has left the channel.
    """

    def __init__(self, known_s: float = KNOWN_S) -> None:
        self._known_s = known_s
        self._told: dict[_Key, list[_Entry]] = {}
        """In their order."""
        self._of: dict[Connection, dict[_Key, _Entry]] = {}
        self._until: dict[int, tuple[float, _Key, _Entry]] = {}
        """By the entry's number, oldest first."""
        self._count = 0
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._until)

    def told(self, app_id: str, channel: str, version: int, connection: Connection) -> None:
        """The connection, which is open, has been told the state of that version."""
        if not version:
            return
        self.left(app_id, channel, connection)
        self._count += 1
        key, entry = (app_id, channel), (version, self._count, connection)
        insort(self._told.setdefault(key, []), entry)
        self._of.setdefault(connection, {})[key] = entry
        self._until[self._count] = (time.monotonic() + self._known_s, key, entry)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(SWEEP_S, self._sweep)

    def knowing(self, app_id: str, channel: str, version: int) -> Sequence[Connection]:
        """Those who know already what has this number."""
        told = self._told.get((app_id, channel))
        if not version or told is None:
            return ()
        return [connection for _, _, connection in told[bisect_left(told, (version,)) :]]

    def left(self, app_id: str, channel: str, connection: Connection) -> None:
        """The connection is not on the channel any more."""
        if (entry := self._of.get(connection, {}).get((app_id, channel))) is not None:
            self._forget((app_id, channel), entry)

    def gone(self, connection: Connection) -> None:
        """The connection has ended."""
        for key, entry in tuple(self._of.get(connection, {}).items()):
            self._forget(key, entry)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._told.clear()
        self._of.clear()
        self._until.clear()

    def _forget(self, key: _Key, entry: _Entry) -> None:
        version, number, connection = entry
        del self._until[number]
        told = self._told[key]
        del told[bisect_left(told, (version, number))]
        if not told:
            del self._told[key]
        of_connection = self._of[connection]
        del of_connection[key]
        if not of_connection:
            del self._of[connection]

    def _sweep(self) -> None:
        now = time.monotonic()
        while self._until:
            until, key, entry = next(iter(self._until.values()))
            if until > now:
                break
            self._forget(key, entry)
        self._timer = asyncio.get_running_loop().call_later(SWEEP_S, self._sweep) if self._until else None
