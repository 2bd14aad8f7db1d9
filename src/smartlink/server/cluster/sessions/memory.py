"""The sessions of a single machine."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence

from smartlink.server.cluster.budgets import BoundedStore
from smartlink.server.cluster.sessions.base import MAX_APP_BYTES

__all__ = ["MemorySessions"]

PER_SESSION, PER_MARK = 500, 350
"""Overhead in bytes of each, measured and rounded up."""
TAKEN_S = 60.0
"""How long a new owner is remembered before it saves anything."""


class MemorySessions:
    """A `SessionStore` within one process."""

    def __init__(self, now: Callable[[], float] = time.monotonic, max_app_bytes: int = MAX_APP_BYTES) -> None:
        self._kept: BoundedStore[str, tuple[str, bytes | None]] = BoundedStore(max_app_bytes, now)
        """The owner, and what was saved last."""
        self._marks: BoundedStore[str, int] = BoundedStore(max_app_bytes // 4, now)

    def used(self, app_id: str) -> int:
        """Bytes currently used by the application's sessions."""
        return self._kept.used(app_id)

    def ask_for_open(self, give_up: Callable[[str, str], bytes | None]) -> bool:
        return False

    def withdraw(self, app_id: str, name: str) -> bytes | None:
        """Remove a session and return what it holds."""
        content = None if (kept := self._kept.get(app_id, name)) is None else kept[1]
        self._kept.take(app_id, name)
        return content

    async def take(self, app_id: str, name: str, owner: str) -> bytes | None:
        kept = self._kept.get(app_id, name)
        content = None if kept is None else kept[1]
        self._kept.put(app_id, name, (owner, content), PER_SESSION + len(content or b""), TAKEN_S)
        return content

    async def save(self, app_id: str, name: str, owner: str, content: bytes, ttl_s: float) -> bool:
        kept = self._kept.get(app_id, name)
        if kept is not None and kept[0] != owner:
            return False
        self._kept.put(app_id, name, (owner, content), PER_SESSION + len(content), ttl_s)
        return True

    async def revoke(self, app_id: str, subject: str, ttl_s: float) -> None:
        self._marks.put(app_id, subject, 1 + secrets.randbits(52), PER_MARK + len(subject), ttl_s)

    async def marks(self, app_id: str, subjects: Sequence[str]) -> Sequence[int]:
        return [self._marks.get(app_id, subject) or 0 for subject in subjects]
