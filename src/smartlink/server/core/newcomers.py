"""Connections that were sent a channel's state a moment ago: changes that the state includes are not sent again.

The publication of such a change may still be on its way from another node. Its version tells whether the state includes
it (`presence.base.ChannelState`).
"""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_left, insort
from collections.abc import Sequence

from smartlink.server.core.hub import Connection

__all__ = ["Newcomers"]

KNOWN_S = 10.0
"""Longest delay of a change's publication; a later one is sent twice."""
SWEEP_S = 1.0

_Key = tuple[str, str]
_Entry = tuple[int, int, Connection]
"""The version of the state, a serial number that makes entries unique, and the connection."""


class Newcomers:
    """By channel, connections that were sent its state lately, each with the latest version. Plain and synchronous.

    Holds no connection that has ended or left the channel.
    """

    def __init__(self, known_s: float = KNOWN_S) -> None:
        self._known_s = known_s
        self._sent: dict[_Key, list[_Entry]] = {}
        """By channel, sorted."""
        self._of: dict[Connection, dict[_Key, _Entry]] = {}
        self._until: dict[int, tuple[float, _Key, _Entry]] = {}
        """By serial number, oldest first."""
        self._count = 0
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._until)

    def note(self, app_id: str, channel: str, version: int, connection: Connection) -> None:
        """Note that an open connection was sent the state of that version."""
        if not version:
            return
        self.left(app_id, channel, connection)
        self._count += 1
        key, entry = (app_id, channel), (version, self._count, connection)
        insort(self._sent.setdefault(key, []), entry)
        self._of.setdefault(connection, {})[key] = entry
        self._until[self._count] = (time.monotonic() + self._known_s, key, entry)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(SWEEP_S, self._sweep)

    def aware_of(self, app_id: str, channel: str, version: int) -> Sequence[Connection]:
        """Return the connections whose state includes the change of this version."""
        entries = self._sent.get((app_id, channel))
        if not version or entries is None:
            return ()
        return [connection for _, _, connection in entries[bisect_left(entries, (version,)) :]]

    def left(self, app_id: str, channel: str, connection: Connection) -> None:
        """Forget a connection on a channel that it has left."""
        if (entry := self._of.get(connection, {}).get((app_id, channel))) is not None:
            self._forget((app_id, channel), entry)

    def gone(self, connection: Connection) -> None:
        """Forget a connection that has ended."""
        for key, entry in tuple(self._of.get(connection, {}).items()):
            self._forget(key, entry)

    def stop(self) -> None:
        """Forget everything."""
        if self._timer is not None:
            self._timer.cancel()
        self._sent.clear()
        self._of.clear()
        self._until.clear()

    def _forget(self, key: _Key, entry: _Entry) -> None:
        version, number, connection = entry
        del self._until[number]
        entries = self._sent[key]
        del entries[bisect_left(entries, (version, number))]
        if not entries:
            del self._sent[key]
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
