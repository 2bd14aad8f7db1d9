"""How many connections a process can hold, and which are evicted when it is full.

Some descriptors are reserved for files, and some for the HTTP API, so that publishers and health checks are served
while clients are refused. Unproven connections (a TLS handshake in progress, HTTP without a signed call) are evicted
for newcomers, longest idle first, so idle peers cannot hold the publishers' share.
"""

from __future__ import annotations

import heapq
from collections.abc import Sized
from typing import Protocol

__all__ = ["Capacity", "IdleConnection"]

KEPT_FOR_FILES = 64
KEPT_FOR_HTTP = 64
SHARE = 64
"""One in this many idle connections is evicted at a time, because finding them takes time."""


class IdleConnection(Protocol):
    """A connection that has not proven itself yet."""

    @property
    def idle_since(self) -> float | None:
        """By the monotonic clock; None while a request is being answered."""

    def evict(self) -> None:
        """Close at once to free the descriptor. Removes itself from `Capacity.evictable`."""


class Capacity:
    """Counts the open connections of a server. `limit` is the number of descriptors the process may have."""

    def __init__(self, limit: int, max_waiting: int) -> None:
        self._most = max(limit - KEPT_FOR_FILES, 1)
        self._most_clients = max(self._most - min(KEPT_FOR_HTTP, self._most // 4), 1)
        self._max_waiting = max_waiting
        self.plain: Sized = ()
        self.over_tls: set[object] = set()
        self.handshakes: set[object] = set()
        self.evictable: set[IdleConnection] = set()
        """Connections that may be evicted."""

    def __len__(self) -> int:
        return len(self.plain) + len(self.over_tls) + len(self.handshakes)

    @property
    def has_room_for_client(self) -> bool:
        """Whether an accepted connection may stay as a client."""
        return len(self) <= self._most_clients

    def make_room(self) -> bool:
        """Evict if necessary. Returns whether one more connection may be accepted."""
        return self._has_room or (self.evict_idle() and self._has_room)

    def evict_idle(self) -> bool:
        """Evict the connections that have been idle longest. Returns whether there were any."""
        idle = [(since, id(each), each) for each in self.evictable if (since := each.idle_since) is not None]
        for _, _, each in heapq.nsmallest(max(1, len(idle) // SHARE), idle):
            each.evict()
        return bool(idle)

    @property
    def _has_room(self) -> bool:
        return len(self) < self._most and len(self.evictable) < self._max_waiting
