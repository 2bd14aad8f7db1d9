"""Who types where, for as long as a client would believe it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

__all__ = ["MemoryTypists", "Typists"]

LASTS_S = 6.0
MAX_OPEN = 100_000


class Typists(Protocol):
    """Remembers for six seconds that a user types, to everybody (None) or to one."""

    def began(self, user_id: int, recipient_id: int | None) -> None:
        """The user types."""

    def ended(self, user_id: int, recipient_id: int | None) -> bool:
        """The user stopped; whether they were typing."""


class MemoryTypists:
    """In this process. A forgotten state only means one "stopped" less, which clients do by themselves."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._until: dict[tuple[int, int | None], float] = {}

    def began(self, user_id: int, recipient_id: int | None) -> None:
        if len(self._until) >= MAX_OPEN:
            now = self._clock()
            self._until = {who: until for who, until in self._until.items() if until > now}
        self._until[user_id, recipient_id] = self._clock() + LASTS_S

    def ended(self, user_id: int, recipient_id: int | None) -> bool:
        return self._until.pop((user_id, recipient_id), 0.0) > self._clock()
