"""What is wrong with a server that serves its own clients all the same: told by `/up`, `/readyz`, and the status."""

from __future__ import annotations

from collections.abc import Callable

from smartlink.background import Background
from smartlink.server.cluster.redis.commands import FULL, RedisCommands

__all__ = ["Health"]


class Health:
    """Knows what is wrong. `is_connected` says whether the other nodes can be reached, `redis` why they cannot."""

    def __init__(self, is_connected: Callable[[], bool], background: Background, redis: RedisCommands | None) -> None:
        self.background = background
        self._is_whole = is_connected
        self._redis = redis

    @property
    def redis(self) -> str:
        """`off`, `down`, `full` or `up`."""
        if self._redis is None:
            return "off"
        if not self._is_whole():
            return "down"
        return "full" if self._redis.is_full else "up"

    @property
    def evicts(self) -> bool:
        return self._redis is not None and bool(self._redis.evicts)

    def problems(self) -> list[str]:
        """Why publishers get 503, or what is not done any more."""
        found = [f"Stopped: {name} ({reason})" for name, reason in self.background.died.items()]
        if self.redis == "full":
            found.append(FULL)
        elif not self._is_whole():
            reason = self._redis.problem if self._redis is not None else ""
            found.append(f"Other nodes are unreachable{': Redis is unreachable' if self._redis is not None else ''}")
            if reason:
                found[-1] += f" ({reason})"
        return found

    def warnings(self) -> list[str]:
        """What works for now."""
        if self._redis is None or not self._redis.evicts:
            return []
        return [f"Redis evicts keys when memory is short ({self._redis.evicts}): set maxmemory-policy noeviction"]
