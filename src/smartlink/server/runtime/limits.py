"""Rates and caps. Pure: time is handed in."""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from functools import lru_cache
from typing import final

__all__ = ["PER_PUBLIC_ADDRESS", "AddressCount", "AddressRate", "TokenBucket"]

PER_PUBLIC_ADDRESS = 250
"""Connections from one public address unless the operator says otherwise: an office behind one has fewer pages open."""

MAX_ADDRESSES = 10_000
"""Addresses that are remembered; beyond, the one that was heard of longest ago is forgotten."""


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


class AddressRate:
    """At most so many a second from one address, and ten times as many at once. IPv6 counts by network of 64 bits."""

    def __init__(self, per_second: float) -> None:
        self._per_second = per_second
        self._buckets: OrderedDict[str, TokenBucket] = OrderedDict()

    def take(self, address: str, now: float) -> bool:
        """Whether one more from this address may pass."""
        key = _network(address)
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = TokenBucket(10 * self._per_second, self._per_second, now)
            if len(self._buckets) > MAX_ADDRESSES:
                self._buckets.popitem(last=False)
        self._buckets.move_to_end(key)
        return bucket.take(now)


class AddressCount:
    """How many connections each address has to each application. IPv6 counts by network of 64 bits.

    Without `most` it is `PER_PUBLIC_ADDRESS`, and only for public addresses: others are proxies, or networks of one's
    own. What is taken is given back.
    """

    def __init__(self, most: int | None = None) -> None:
        self._most = most
        self._counts: dict[tuple[str, str], int] = {}

    def has_room(self, app_id: str, address: str) -> bool:
        """Whether one more connection from this address may come."""
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
