"""The receipts of one node, alone."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

from smartlink.server.receipts.base import KEPT_S, Pending

__all__ = ["MemoryReceipts"]

MAX_KEPT = 500_000
"""Keys of all apps that are kept; beyond, the oldest is forgotten."""


class MemoryReceipts:
    """`Receipts` within one process."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._kept: OrderedDict[tuple[str, str], tuple[float, bytes | None]] = OrderedDict()
        """In order of age: when it is to be forgotten, and the answer, None while there is none yet."""

    async def claim(self, app_id: str, key: str) -> bytes | None:
        now = self._now()
        while self._kept and (len(self._kept) >= MAX_KEPT or next(iter(self._kept.values()))[0] <= now):
            self._kept.popitem(last=False)
        found = self._kept.get((app_id, key))
        if found is None:
            self._kept[app_id, key] = (now + KEPT_S, None)
            return None
        if found[1] is None:
            raise Pending
        return found[1]

    async def complete(self, app_id: str, key: str, answer: bytes) -> None:
        found = self._kept.get((app_id, key))
        if found is not None:
            self._kept[app_id, key] = (found[0], answer)

    async def release(self, app_id: str, key: str) -> None:
        self._kept.pop((app_id, key), None)
