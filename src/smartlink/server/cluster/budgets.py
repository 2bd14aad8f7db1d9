"""In-memory storage for applications, with a byte budget per application and a time to live per item.

An application over its budget loses its own oldest items, never another's. Expired items are freed within `SWEEP_S`,
even if no one looks them up.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["SWEEP_S", "BoundedStore"]

SWEEP_S = 1.0
SWEPT_AT_ONCE = 2_000
"""Items freed in one turn of the loop."""

K = TypeVar("K", str, bytes)
V = TypeVar("V")


class _Account(Generic[K, V]):
    __slots__ = ("items", "used")

    def __init__(self) -> None:
        self.items: OrderedDict[K, tuple[V, int, float]] = OrderedDict()
        """In order of `put`: value, bytes, and expiry."""
        self.used = 0


class BoundedStore(Generic[K, V]):
    """Values by application and key.

    Items of an application usually have the same time to live. One with a shorter time than those before it is hidden
    when it expires, but freed after them.
    """

    def __init__(
        self, max_bytes: int, now: Callable[[], float], gone: Callable[[str, K, V], None] | None = None
    ) -> None:
        """`max_bytes` is the budget per application. `gone` is called with each evicted or expired value."""
        self._max_bytes = max_bytes
        self._now = now
        self._gone: Callable[[str, K, V], None] | None = gone
        self._accounts: dict[str, _Account[K, V]] = {}
        self._sweep: asyncio.TimerHandle | None = None

    def used(self, app_id: str) -> int:
        """Bytes currently used by the application."""
        account = self._accounts.get(app_id)
        return 0 if account is None else account.used

    def get(self, app_id: str, key: K) -> V | None:
        account = self._accounts.get(app_id)
        item = None if account is None else account.items.get(key)
        return None if item is None or item[2] <= self._now() else item[0]

    def put(self, app_id: str, key: K, value: V, size: int, ttl_s: float) -> None:
        """Store `value` as the application's newest, replacing the old one. `size` is its total in bytes."""
        self.take(app_id, key)
        account = self._accounts.get(app_id)
        if account is None:
            account = self._accounts[app_id] = _Account()
        account.items[key] = (value, size, self._now() + ttl_s)
        self.charge(app_id, size)
        if self._sweep is None and self._accounts:
            self._sweep_later(SWEEP_S)

    def take(self, app_id: str, key: K) -> V | None:
        """Remove and return it, expired or not; `gone` is not called."""
        account = self._accounts.get(app_id)
        item = None if account is None else account.items.pop(key, None)
        if item is None:
            return None
        self.charge(app_id, -item[1])
        return item[0]

    def charge(self, app_id: str, size: int) -> None:
        """Adjust the application's usage, apart from its values, by `size` bytes, and make room if necessary."""
        account = self._accounts.get(app_id)
        if account is None:
            account = self._accounts[app_id] = _Account()
        account.used += size
        while account.used > self._max_bytes and account.items:
            self._drop_oldest(app_id, account)
        self._close(app_id, account)

    def sweep(self) -> bool:
        """Free expired items. Returns whether there is more to free than fits one turn."""
        now, left = self._now(), SWEPT_AT_ONCE
        for app_id, account in tuple(self._accounts.items()):
            while account.items and next(iter(account.items.values()))[2] <= now:
                if not left:
                    return True
                left -= 1
                self._drop_oldest(app_id, account)
        return False

    def _drop_oldest(self, app_id: str, account: _Account[K, V]) -> None:
        key, (value, size, _) = account.items.popitem(last=False)
        account.used -= size
        if self._gone is not None:
            self._gone(app_id, key, value)
        self._close(app_id, account)

    def _close(self, app_id: str, account: _Account[K, V]) -> None:
        if not account.items and not account.used:
            self._accounts.pop(app_id, None)

    def _sweep_later(self, wait_s: float) -> None:
        self._sweep = asyncio.get_running_loop().call_later(wait_s, self._sweep_now)

    def _sweep_now(self) -> None:
        self._sweep = None
        has_more = self.sweep()
        if self._accounts:
            self._sweep_later(0 if has_more else SWEEP_S)
