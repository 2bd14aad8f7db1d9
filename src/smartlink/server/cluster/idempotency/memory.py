"""The receipts of one node, alone."""

from __future__ import annotations

import time
from collections.abc import Callable
from hashlib import blake2b

from smartlink.server.cluster.budgets import Keeper
from smartlink.server.cluster.idempotency.base import KEPT_S, MAX_APP_BYTES, CallUnderWay

__all__ = ["MemoryIdempotency"]

PER_RECEIPT = 400
"""Bytes that a receipt takes beside its answer: as measured, and something over."""


class MemoryIdempotency:
    """`IdempotencyStore` within one process. Keys are kept as digests: a long one takes no more than a short one."""

    def __init__(self, now: Callable[[], float] = time.monotonic, max_app_bytes: int = MAX_APP_BYTES) -> None:
        self._kept: Keeper[bytes, tuple[bytes | None]] = Keeper(max_app_bytes, now)
        """The answer, None while there is none yet."""

    def used(self, app_id: str) -> int:
        """Bytes that the application's receipts take now."""
        return self._kept.used(app_id)

    async def claim(self, app_id: str, key: str) -> bytes | None:
        digest = _digest(key)
        found = self._kept.get(app_id, digest)
        if found is None:
            self._kept.put(app_id, digest, (None,), PER_RECEIPT, KEPT_S)
            return None
        if found[0] is None:
            raise CallUnderWay
        return found[0]

    async def complete(self, app_id: str, key: str, answer: bytes) -> None:
        digest = _digest(key)
        if self._kept.get(app_id, digest) is not None:
            self._kept.put(app_id, digest, (answer,), PER_RECEIPT + len(answer), KEPT_S)

    async def release(self, app_id: str, key: str) -> None:
        self._kept.take(app_id, _digest(key))


def _digest(key: str) -> bytes:
    return blake2b(key.encode(), digest_size=16).digest()
