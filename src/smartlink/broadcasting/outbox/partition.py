"""Assigns channels to parts of the outbox and to advisory locks.

Both derive from one hash that must never change: rows are stored with their part, and processes of different versions
must take the same lock for the same channel.
"""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache
from typing import Final

from smartlink.broadcasting.errors import BroadcastConfigError

__all__ = ["PARTS", "check_queue", "lock_and_part"]

PARTS: Final = 16
"""The number of parts of a queue, and so the number of workers that can work on it at once."""

_QUEUE = re.compile(r"[A-Za-z0-9_.-]{1,32}\Z")


@lru_cache(maxsize=4096)
def lock_and_part(channel: str) -> tuple[int, int]:
    """Return the channel's advisory lock, a signed 64-bit number, and its part."""
    digest = hashlib.blake2b(channel.encode(), digest_size=8, person=b"smartlink-outbox").digest()
    return int.from_bytes(digest, "big", signed=True), digest[-1] % PARTS


@lru_cache(maxsize=256)
def check_queue(name: str) -> str:
    """Return `name` if it is a valid queue name. Raises BroadcastConfigError otherwise."""
    if not _QUEUE.match(name):
        raise BroadcastConfigError(
            f"{name[:60]!r} is not a queue name: use 1 to 32 letters, digits, hyphens, underscores and dots"
        )
    return name
