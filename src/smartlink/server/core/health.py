"""Problems of a server that still serves its own clients, for `/up`, `/readyz` and the status."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from smartlink.background import Background

if TYPE_CHECKING:
    from smartlink.server.cluster.redis.commands import RedisCommands

__all__ = ["CERTIFICATE_S", "Health"]

CERTIFICATE_S = 14 * 86_400.0
"""How long before its end a certificate is a warning. Renewals that work happen well before."""


class Health:
    """Collects problems. `is_connected` says whether other nodes can be reached, `redis` why they cannot."""

    def __init__(self, is_connected: Callable[[], bool], background: Background, redis: RedisCommands | None) -> None:
        self.background = background
        self.certificate_ends_at: Callable[[], float | None] = lambda: None
        """When the certificate for clients ends, in seconds since 1970; None without one."""
        self.is_webhook_queue_away: Callable[[], bool] = lambda: False
        self._is_connected = is_connected
        self._redis = redis

    @property
    def redis(self) -> str:
        """`off`, `down`, `full` or `up`."""
        if self._redis is None:
            return "off"
        if not self._is_connected():
            return "down"
        return "full" if self._redis.is_full else "up"

    @property
    def evicts(self) -> bool:
        """Whether Redis may evict keys."""
        return self._redis is not None and bool(self._redis.evicts)

    def problems(self) -> list[str]:
        """Return why publishers get 503 or clients refuse TLS, and which background tasks have stopped."""
        found = [f"Stopped: {name} ({reason})" for name, reason in self.background.died.items()]
        if self.redis == "full":
            from smartlink.server.cluster.redis.commands import FULL  # a server without Redis does not import redis-py

            found.append(FULL)
        elif not self._is_connected():
            reason = self._redis.problem if self._redis is not None else ""
            found.append(f"Other nodes are unreachable{': Redis is unreachable' if self._redis is not None else ''}")
            if reason:
                found[-1] += f" ({reason})"
        ends_at = self.certificate_ends_at()
        if ends_at is not None and ends_at <= time.time():
            found.append("The certificate has ended, clients refuse it: renew REVERB_SERVER_TLS_CERT, then send SIGHUP")
        return found

    def warnings(self) -> list[str]:
        """Return risks that break nothing yet."""
        found = []
        if self._redis is not None and self._redis.evicts:
            found.append(
                f"Redis evicts keys when memory is short ({self._redis.evicts}): set maxmemory-policy noeviction"
            )
        ends_at = self.certificate_ends_at()
        if ends_at is not None and 0 < ends_at - time.time() < CERTIFICATE_S:
            days = int((ends_at - time.time()) / 86_400)
            found.append(f"The certificate ends in {days} days: renew REVERB_SERVER_TLS_CERT, then send SIGHUP")
        if self.is_webhook_queue_away():
            found.append("The webhook queue is unavailable, events wait in memory: see the log for the reason")
        return found
