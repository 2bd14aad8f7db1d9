"""Laravel's Redis broadcasts: `{"event", "data", "socket"}`, published to the Redis channel of the wire channel's name.

The server that holds the sockets subscribes there. Redis stores nothing: events without a subscriber are lost. Needs
the extra `redis`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from smartlink.broadcasting.drivers.loops import PerLoop
from smartlink.broadcasting.envelope import Envelope
from smartlink.broadcasting.errors import BroadcastConfigError, BroadcastUnavailable
from smartlink.lost import closed_is_lost

if TYPE_CHECKING:
    from redis.asyncio import Redis

__all__ = ["RedisDriver"]


class RedisDriver:
    """Publishes through a Redis or Valkey server. `prefix` is prepended to each channel's name.

    All envelopes of a call are published in one transaction, in order. `timeout_s` bounds the whole call. Raises
    BroadcastConfigError for an invalid address, and without the redis package.
    """

    name = "redis"

    def __init__(self, url: str, *, prefix: str = "", timeout_s: float = 5.0, connect_timeout_s: float = 3.0) -> None:
        self._prefix = prefix
        self._timeout_s = timeout_s
        self._clients = PerLoop(lambda: _client(url, timeout_s, min(timeout_s, connect_timeout_s)))
        self._closed = False

    async def send(self, envelopes: Sequence[Envelope], *, idempotency_key: str | None = None) -> None:
        """Publish the envelopes. Raises BroadcastUnavailable. Never retries, since Redis cannot detect repeats."""
        from redis.exceptions import AuthenticationError, NoPermissionError, RedisError

        if self._closed:
            raise BroadcastUnavailable("redis: the driver has been closed")
        if not envelopes:
            return
        try:
            with closed_is_lost():
                await self._publish(envelopes)
        except (AuthenticationError, NoPermissionError) as error:
            raise BroadcastUnavailable(f"redis denied access: {error}; check REDIS_URL or REDIS_PASSWORD") from None
        except TimeoutError:
            raise BroadcastUnavailable(f"redis: no answer within {self._timeout_s:g} s", answered=True) from None
        except (RedisError, OSError, ValueError) as error:
            # The client raises ValueError for bytes that are not valid RESP.
            raise BroadcastUnavailable(f"redis: {type(error).__name__}: {error}") from None

    async def _publish(self, envelopes: Sequence[Envelope]) -> None:
        async with asyncio.timeout(self._timeout_s), self._clients.here().pipeline(transaction=True) as pipeline:
            for envelope in envelopes:
                pipeline.publish(self._prefix + envelope.channel, _message(envelope))
            await pipeline.execute()

    async def aclose(self) -> None:
        """Close the connections."""
        self._closed = True
        if (client := self._clients.leave()) is not None:
            await client.aclose()


def _message(envelope: Envelope) -> bytes:
    return msgspec.json.encode(
        {"event": envelope.name, "data": msgspec.Raw(envelope.payload.encode()), "socket": envelope.socket_id}
    )


def _client(url: str, timeout_s: float, connect_timeout_s: float) -> Redis:
    try:
        from redis.asyncio import Redis
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff
    except ImportError:
        raise BroadcastConfigError(
            "BROADCAST_DRIVER=redis needs the redis package: pip install 'smartlink-realtime[redis]'"
        ) from None
    try:
        return Redis.from_url(
            url,
            socket_timeout=timeout_s,
            socket_connect_timeout=connect_timeout_s,
            health_check_interval=15,
            retry=Retry(NoBackoff(), 0),
        )
    except ValueError as error:
        raise BroadcastConfigError(f"REDIS_URL: {error}; use redis://:password@host:6379/0") from None
