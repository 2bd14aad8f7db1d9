"""State that API processes share through Redis. While Redis is unavailable, each process continues on its own.

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
"""After a failure, Redis is not asked for this long, so that only the first request waits in vain."""
MAX_CONNECTIONS = 20
PREFIX = "smartlink:portal:"

_Answer = TypeVar("_Answer")
_log = logging.getLogger(__name__)


class SharedRedisAway(Exception):
    """Redis did not answer; continue without it."""


def redis_url(settings: BroadcastSettings) -> str | None:
    """Return the address of Redis, or None unless REDIS_URL or REDIS_HOST is set."""
    is_given = settings.redis_url is not None or "redis_host" in settings.model_fields_set
    return settings.redis_address if is_given else None


class SharedRedis:
    """A client of Redis. Logs once when Redis becomes unavailable, and once when it is back."""

    def __init__(self, url: str) -> None:
        # Wait for a free connection rather than treating a busy pool as an unavailable Redis.
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
        """Return the result of `question`, called with the client. Raises SharedRedisAway."""
        if time.monotonic() < self._ask_at:
            raise SharedRedisAway
        try:
            with closed_is_lost():
                async with asyncio.timeout(2 * TIMEOUT_S):
                    answer = await question(self.client)
        except (RedisError, OSError, TimeoutError) as error:
            self._ask_at = time.monotonic() + LEFT_ALONE_S
            if not self._is_away:
                _log.warning("Redis is unavailable, this process continues on its own: %s", type(error).__name__)
            self._is_away = True
            raise SharedRedisAway from error
        if self._is_away:
            _log.info("Redis is available again")
            self._is_away = False
        return answer

    async def aclose(self) -> None:
        """Close all connections."""
        await self.client.aclose()
