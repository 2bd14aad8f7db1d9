"""Problems of a server that still serves its own clients, for `/up`, `/readyz` and the status."""

from __future__ import annotations

from collections.abc import Callable

from smartlink.background import Background
from smartlink.server.cluster.redis.commands import FULL, RedisCommands

__all__ = ["Health"]


class Health:
    """Collects problems. `is_connected` says whether other nodes can be reached, `redis` why they cannot."""

    def __init__(self, is_connected: Callable[[], bool], background: Background, redis: RedisCommands | None) -> None:
        self.background = background
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
        """Return why publishers get 503, and which background tasks have stopped."""
        found = [f"Stopped: {name} ({reason})" for name, reason in self.background.died.items()]
        if self.redis == "full":
            found.append(FULL)
        elif not self._is_connected():
            reason = self._redis.problem if self._redis is not None else ""
            found.append(f"Other nodes are unreachable{': Redis is unreachable' if self._redis is not None else ''}")
            if reason:
                found[-1] += f" ({reason})"
        return found

    def warnings(self) -> list[str]:
        """Return risks that break nothing yet."""
        if self._redis is None or not self._redis.evicts:
            return []
        return [f"Redis evicts keys when memory is short ({self._redis.evicts}): set maxmemory-policy noeviction"]
