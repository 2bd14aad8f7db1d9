"""Rates and caps. Pure: time is handed in."""

from __future__ import annotations

from typing import final

__all__ = ["TokenBucket"]


@final
class TokenBucket:
    """Lets `capacity` pass at once and refills at `per_second`; what goes over is refused, not queued.

    What costs more than the capacity passes when the bucket is full, and is owed.
    """

    __slots__ = ("_at", "_tokens", "capacity", "per_second")

    def __init__(self, capacity: float, per_second: float, now: float) -> None:
        self.capacity = capacity
        self.per_second = per_second
        self._tokens = capacity
        self._at = now

    def take(self, now: float, cost: float = 1) -> bool:
        """Take `cost` tokens if they are there. `now` in seconds of a clock that never goes back."""
        self._tokens = min(self.capacity, self._tokens + max(0.0, now - self._at) * self.per_second)
        self._at = now
        if self._tokens < min(cost, self.capacity):
            return False
        self._tokens -= cost
        return True

    def wait_s(self, cost: float = 1) -> float:
        """In how many seconds, after a refusal, `cost` tokens will be there."""
        return max(0.0, (min(cost, self.capacity) - self._tokens) / self.per_second)
