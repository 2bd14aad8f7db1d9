"""Rates and caps. Pure: time is passed in."""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from functools import lru_cache
from typing import final

__all__ = ["PER_PUBLIC_ADDRESS", "AddressCount", "AddressRate", "TokenBucket"]

PER_PUBLIC_ADDRESS = 250
"""Default limit of connections per public address: enough for an office behind one address."""

MAX_ADDRESSES = 10_000
"""Number of addresses remembered; beyond it, the least recently seen one is forgotten."""


@final
class TokenBucket:
    """Allows bursts of `capacity` and refills at `per_second`. Excess is refused, not queued.

    A cost above the capacity is allowed when the bucket is full, and the rest is owed.
    """

    __slots__ = ("_at", "_tokens", "capacity", "per_second")

    def __init__(self, capacity: float, per_second: float, now: float) -> None:
        self.capacity = capacity
        self.per_second = per_second
        self._tokens = capacity
        self._at = now

    def take(self, now: float, cost: float = 1) -> bool:
        """Take `cost` tokens if available. `now` is in seconds of a monotonic clock."""
        self._tokens = min(self.capacity, self._tokens + max(0.0, now - self._at) * self.per_second)
        self._at = now
        if self._tokens < min(cost, self.capacity):
            return False
        self._tokens -= cost
        return True

    def wait_s(self, cost: float = 1) -> float:
        """Seconds until `cost` tokens are available, after a refusal."""
        return max(0.0, (min(cost, self.capacity) - self._tokens) / self.per_second)


class AddressRate:
    """Limits events per second from one address, with bursts of ten times as many. IPv6 is counted by /64."""

    def __init__(self, per_second: float) -> None:
        self._per_second = per_second
        self._buckets: OrderedDict[str, TokenBucket] = OrderedDict()

    def take(self, address: str, now: float) -> bool:
        """Whether one more from this address is allowed."""
        key = _network(address)
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = TokenBucket(10 * self._per_second, self._per_second, now)
            if len(self._buckets) > MAX_ADDRESSES:
                self._buckets.popitem(last=False)
        self._buckets.move_to_end(key)
        return bucket.take(now)


class AddressCount:
    """Counts connections per application and address. IPv6 is counted by /64.

    Without `most`, the limit is `PER_PUBLIC_ADDRESS` and applies to public addresses only: others are proxies or
    internal networks. Each `take` is paired with a `release`.
    """

    def __init__(self, most: int | None = None) -> None:
        self._most = most
        self._counts: dict[tuple[str, str], int] = {}

    def has_room(self, app_id: str, address: str) -> bool:
        """Whether one more connection from this address is allowed."""
        most = self._most
        if most is None:
            if not _is_public(address):
                return True
            most = PER_PUBLIC_ADDRESS
        return self._counts.get((app_id, _network(address)), 0) < most

    def take(self, app_id: str, address: str) -> None:
        key = (app_id, _network(address))
        self._counts[key] = self._counts.get(key, 0) + 1

    def release(self, app_id: str, address: str) -> None:
        key = (app_id, _network(address))
        self._counts[key] -= 1
        if not self._counts[key]:
            del self._counts[key]


@lru_cache(maxsize=1_024)
def _is_public(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_global
    except ValueError:
        return False  # a Unix socket


@lru_cache(maxsize=1_024)
def _network(address: str) -> str:
    if ":" not in address:
        return address
    try:
        return str(ipaddress.ip_network((address, 64), strict=False))
    except ValueError:
        return address
