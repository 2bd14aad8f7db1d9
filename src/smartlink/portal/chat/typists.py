"""Who types where, for as long as a client would believe it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from smartlink.portal.shared.redis import PREFIX, SharedRedis, SharedRedisAway

__all__ = ["MemoryTypists", "RedisTypists", "Typists"]

LASTS_S = 6.0
MAX_OPEN = 100_000


class Typists(Protocol):
    """Remembers for six seconds that a user types, to everybody (None) or to one."""

    async def began(self, user_id: int, recipient_id: int | None) -> None:
        """The user types."""

    async def ended(self, user_id: int, recipient_id: int | None) -> bool:
        """The user stopped; whether they were typing."""


class MemoryTypists:
    """In this process. A forgotten state only means one "stopped" less, which clients do by themselves."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._until: dict[tuple[int, int | None], float] = {}

    async def began(self, user_id: int, recipient_id: int | None) -> None:
        """The user types."""
        if len(self._until) >= MAX_OPEN:
            now = self._clock()
            self._until = {who: until for who, until in self._until.items() if until > now}
        self._until[user_id, recipient_id] = self._clock() + LASTS_S

    async def ended(self, user_id: int, recipient_id: int | None) -> bool:
        """The user stopped; whether they were typing."""
        return self._until.pop((user_id, recipient_id), 0.0) > self._clock()


class RedisTypists:
    """In Redis, for all processes; while it is away, in this one."""

    def __init__(self, shared: SharedRedis, alone: Typists | None = None) -> None:
        self._shared = shared
        self._alone = alone or MemoryTypists()

    async def began(self, user_id: int, recipient_id: int | None) -> None:
        """The user types."""
        try:
            name, lasts_ms = _name(user_id, recipient_id), int(LASTS_S * 1000)
            await self._shared.ask(lambda redis: redis.set(name, 1, px=lasts_ms))
        except SharedRedisAway:
            await self._alone.began(user_id, recipient_id)

    async def ended(self, user_id: int, recipient_id: int | None) -> bool:
        """The user stopped; whether they were typing."""
        try:
            return bool(await self._shared.ask(lambda redis: redis.delete(_name(user_id, recipient_id))))
        except SharedRedisAway:
            return await self._alone.ended(user_id, recipient_id)


def _name(user_id: int, recipient_id: int | None) -> str:
    return f"{PREFIX}typing:{user_id}:{'all' if recipient_id is None else recipient_id}"
