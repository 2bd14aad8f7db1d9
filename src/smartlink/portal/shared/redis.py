"""What API processes share over Redis, and what becomes of it while Redis is away: each process goes on by itself.

No request waits longer than `TIMEOUT_S` for Redis, and none fails because of it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import redis.asyncio
from redis.exceptions import RedisError

from smartlink.broadcasting import BroadcastSettings
from smartlink.lost import closed_is_lost

__all__ = ["SharedRedis", "SharedRedisAway", "redis_url"]

TIMEOUT_S = 0.5
LEFT_ALONE_S = 1.0
"""After a failure nobody asks Redis for so long: only the first waits in vain."""
MAX_CONNECTIONS = 20
PREFIX = "smartlink:portal:"

_Answer = TypeVar("_Answer")
_log = logging.getLogger(__name__)


class SharedRedisAway(Exception):
    """Redis did not answer; do without."""


def redis_url(settings: BroadcastSettings) -> str | None:
    """Where Redis is, when REDIS_URL or REDIS_HOST says so."""
    is_given = settings.redis_url is not None or "redis_host" in settings.model_fields_set
    return settings.redis_address if is_given else None


class SharedRedis:
    """Asks Redis. Tells of its absence once, and once of its return."""

    def __init__(self, url: str) -> None:
        # Who finds all connections at work waits for one, instead of being told that Redis is away.
        pool = redis.asyncio.BlockingConnectionPool.from_url(
            url,
            max_connections=MAX_CONNECTIONS,
            timeout=TIMEOUT_S,
            socket_timeout=TIMEOUT_S,
            socket_connect_timeout=TIMEOUT_S,
        )
        self.client: Any = redis.asyncio.Redis.from_pool(pool)
        self._ask_at = 0.0
        self._is_away = False

    async def ask(self, question: Callable[[Any], Awaitable[_Answer]]) -> _Answer:
        """What `question`, given the client, is answered. Raises RedisAway."""
        if time.monotonic() < self._ask_at:
            raise SharedRedisAway
        try:
            with closed_is_lost():
                async with asyncio.timeout(2 * TIMEOUT_S):
                    answer = await question(self.client)
        except (RedisError, OSError, TimeoutError) as error:
            self._ask_at = time.monotonic() + LEFT_ALONE_S
            if not self._is_away:
                _log.warning("Redis is away, this process counts and remembers by itself: %s", type(error).__name__)
            self._is_away = True
            raise SharedRedisAway from error
        if self._is_away:
            _log.info("Redis is back")
            self._is_away = False
        return answer

    async def aclose(self) -> None:
        """Close all connections."""
        await self.client.aclose()
