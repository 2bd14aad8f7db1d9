"""How many connections a process can hold, and which of them goes first when there is no room.

Some descriptors are kept for what is not a connection, and some that only the HTTP API gets: publishers and health
checks are served while clients are refused. Connections that have shown no right to be here yet (a TLS handshake under
way, HTTP without a signed call) make way for newcomers, the one that has been idle longest first; so those who do
nothing cannot hold what is kept for publishers.
"""

from __future__ import annotations

import heapq
from collections.abc import Sized
from typing import Protocol

__all__ = ["Capacity", "IdleConnection"]

KEPT_FOR_FILES = 64
KEPT_FOR_HTTP = 64
SHARE = 64
"""Of those who wait, one in so many makes way at once: to look for them takes time."""


class IdleConnection(Protocol):
    """A connection that has shown no right to be here."""

    @property
    def idle_since(self) -> float | None:
        """By the monotonic clock; None while it is being answered."""

    def evict(self) -> None:
        """End at once: its descriptor is needed. It leaves `Capacity.evictable`."""


class Capacity:
    """Counts the open connections of a server. `limit`: descriptors that the process may have."""

    def __init__(self, limit: int, max_waiting: int) -> None:
        self._most = max(limit - KEPT_FOR_FILES, 1)
        self._most_clients = max(self._most - min(KEPT_FOR_HTTP, self._most // 4), 1)
        self._max_waiting = max_waiting
        self.plain: Sized = ()
        self.over_tls: set[object] = set()
        self.handshakes: set[object] = set()
        self.evictable: set[IdleConnection] = set()
        """Those that make way."""

    def __len__(self) -> int:
        return len(self.plain) + len(self.over_tls) + len(self.handshakes)

    @property
    def has_room_for_client(self) -> bool:
        """Whether a connection that has been accepted may stay for long."""
        return len(self) <= self._most_clients

    def make_room(self) -> bool:
        """Whether one more connection may be accepted, after those who must have made way."""
        return self._has_room or (self.evict_idle() and self._has_room)

    def evict_idle(self) -> bool:
        """Have those make way that have been idle longest. Returns whether there was one."""
        idle = [(since, id(each), each) for each in self.evictable if (since := each.idle_since) is not None]
        for _, _, each in heapq.nsmallest(max(1, len(idle) // SHARE), idle):
            each.evict()
        return bool(idle)

    @property
    def _has_room(self) -> bool:
        return len(self) < self._most and len(self.evictable) < self._max_waiting
