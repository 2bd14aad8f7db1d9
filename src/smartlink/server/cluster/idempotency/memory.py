"""The idempotency store of a single node."""

from __future__ import annotations

import time
from collections.abc import Callable
from hashlib import blake2b

from smartlink.server.cluster.budgets import BoundedStore
from smartlink.server.cluster.idempotency.base import KEPT_S, MAX_APP_BYTES, CallUnderWay

__all__ = ["MemoryIdempotency"]

PER_RECEIPT = 400
"""Overhead in bytes of a stored answer, measured and rounded up."""


class MemoryIdempotency:
    """An `IdempotencyStore` within one process. Keys are stored as digests of constant size."""

    def __init__(self, now: Callable[[], float] = time.monotonic, max_app_bytes: int = MAX_APP_BYTES) -> None:
        self._kept: BoundedStore[bytes, tuple[bytes | None]] = BoundedStore(max_app_bytes, now)
        """The answer, None while the call is in progress."""

    def used(self, app_id: str) -> int:
        """Bytes currently used by the application's answers."""
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
