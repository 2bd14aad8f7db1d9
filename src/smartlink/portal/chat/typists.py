"""Remembers who is typing, for as long as clients show it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from smartlink.portal.shared.redis import PREFIX, SharedRedis, SharedRedisAway

__all__ = ["MemoryTypists", "RedisTypists", "Typists"]

LASTS_S = 6.0
MAX_OPEN = 100_000


class Typists(Protocol):
    """Remembers for six seconds that a user is typing, in general chat (None) or to one user."""

    async def began(self, user_id: int, recipient_id: int | None) -> None:
        """Note that the user is typing."""

    async def ended(self, user_id: int, recipient_id: int | None) -> bool:
        """Note that the user stopped. Returns whether they were typing."""


class MemoryTypists:
    """Keeps the state in this process. If it is lost, a "stopped" event is not sent, but clients time out anyway."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._until: dict[tuple[int, int | None], float] = {}

    async def began(self, user_id: int, recipient_id: int | None) -> None:
        """Note that the user is typing."""
        if len(self._until) >= MAX_OPEN:
            now = self._clock()
            self._until = {who: until for who, until in self._until.items() if until > now}
        self._until[user_id, recipient_id] = self._clock() + LASTS_S

    async def ended(self, user_id: int, recipient_id: int | None) -> bool:
        """Note that the user stopped. Returns whether they were typing."""
        return self._until.pop((user_id, recipient_id), 0.0) > self._clock()


class RedisTypists:
    """Keeps the state in Redis, for all processes; in this process while Redis is unavailable."""

    def __init__(self, shared: SharedRedis, alone: Typists | None = None) -> None:
        self._shared = shared
        self._alone = alone or MemoryTypists()

    async def began(self, user_id: int, recipient_id: int | None) -> None:
        """Note that the user is typing."""
        try:
            name, lasts_ms = _name(user_id, recipient_id), int(LASTS_S * 1000)
            await self._shared.ask(lambda redis: redis.set(name, 1, px=lasts_ms))
        except SharedRedisAway:
            await self._alone.began(user_id, recipient_id)

    async def ended(self, user_id: int, recipient_id: int | None) -> bool:
        """Note that the user stopped. Returns whether they were typing."""
        try:
            return bool(await self._shared.ask(lambda redis: redis.delete(_name(user_id, recipient_id))))
        except SharedRedisAway:
            return await self._alone.ended(user_id, recipient_id)


def _name(user_id: int, recipient_id: int | None) -> str:
    return f"{PREFIX}typing:{user_id}:{'all' if recipient_id is None else recipient_id}"
