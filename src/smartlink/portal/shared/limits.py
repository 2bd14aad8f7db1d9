"""Rate limits: a sliding window per action and key, counted in this process, or in Redis for several processes."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Final, Protocol

from smartlink.portal.shared.errors import TooMany
from smartlink.portal.shared.redis import PREFIX, SharedRedis, SharedRedisAway

__all__ = ["LIMITS", "Counter", "MemoryCounter", "RateLimits", "RedisCounter"]

LIMITS: Final = {
    "register": (30, 60.0),
    "sign-in": (60, 60.0),
    "login": (10, 60.0),
    "password": (10, 60.0),
    "typing": (5, 1.0),
    "message": (20, 10.0),
    "wallet": (60, 1.0),
    "search": (30, 10.0),
    "profile": (30, 60.0),
    "token": (30, 60.0),
    "campaign": (30, 60.0),
    "change": (300, 60.0),
    "signature": (300, 60.0),
}
"""How often, in how many seconds. By address: register, sign-in. By account and address: login. Others: by user."""
MAX_KEYS = 100_000

# Keeps, per key, a list of times, latest first, by Redis' clock: the processes' clocks may differ.
_TAKE = """
local now = redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)
local at_most, window = tonumber(ARGV[1]), tonumber(ARGV[2])
local oldest = redis.call('LINDEX', KEYS[1], at_most - 1)
if oldest and now - oldest < window then
    return oldest + window - now
end
redis.call('LPUSH', KEYS[1], now)
redis.call('LTRIM', KEYS[1], 0, at_most - 1)
redis.call('PEXPIRE', KEYS[1], window)
return 0
"""


class Counter(Protocol):
    """Counts per key. Allows at most `at_most` in any `window_s` seconds; refused attempts do not count."""

    async def take(self, key: str, at_most: int, window_s: float) -> float:
        """Count one attempt. Returns 0 if it is allowed, else the seconds to wait."""


class MemoryCounter:
    """Counts in this process, for up to 100,000 keys; beyond that the least recently used are dropped."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._taken: dict[str, deque[float]] = {}

    async def take(self, key: str, at_most: int, window_s: float) -> float:
        """Count one attempt. Returns 0 if it is allowed, else the seconds to wait."""
        now = self._clock()
        # Removed and reinserted, so that the dictionary is in order of use.
        taken = self._taken.pop(key, None)
        if taken is None:
            taken = deque(maxlen=at_most)
            if len(self._taken) >= MAX_KEYS:
                del self._taken[next(iter(self._taken))]
        self._taken[key] = taken
        if len(taken) == at_most and now - taken[0] < window_s:
            return taken[0] + window_s - now
        taken.append(now)
        return 0.0


class RedisCounter:
    """Counts in Redis, for all processes together; in this process while Redis is unavailable."""

    def __init__(self, shared: SharedRedis, alone: Counter | None = None) -> None:
        self._shared = shared
        self._alone = alone or MemoryCounter()
        self._script = shared.client.register_script(_TAKE)

    async def take(self, key: str, at_most: int, window_s: float) -> float:
        """Count one attempt. Returns 0 if it is allowed, else the seconds to wait."""
        try:
            name, window_ms = f"{PREFIX}limit:{key}", int(window_s * 1000)
            waits_ms = await self._shared.ask(lambda _: self._script(keys=[name], args=[at_most, window_ms]))
        except SharedRedisAway:
            return await self._alone.take(key, at_most, window_s)
        return float(waits_ms) / 1000


class RateLimits:
    """Limits how often actions may be done. `allowed` maps an action to a number and a period in seconds."""

    def __init__(self, counter: Counter, allowed: Mapping[str, tuple[int, float]] = LIMITS) -> None:
        self.allowed = allowed
        self._counter = counter

    async def take(self, what: str, key: object) -> None:
        """Count one action `what` by `key`. Raises TooMany."""
        waits_s = await self._counter.take(f"{what}:{key}", *self.allowed[what])
        if waits_s > 0:
            raise TooMany(waits_s)
