"""Which part of the outbox a channel belongs to, and the number of its lock.

Both come from one hash that never changes: rows are stored with their part, and processes of different versions must
lock the same number for the same channel.
"""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache
from typing import Final

from smartlink.broadcasting.errors import BroadcastConfigError

__all__ = ["PARTS", "check_queue", "lock_and_part"]

PARTS: Final = 16
"""How many parts a queue is shared out in; at most so many workers have work at once."""

_QUEUE = re.compile(r"[A-Za-z0-9_.-]{1,32}\Z")


@lru_cache(maxsize=4096)
def lock_and_part(channel: str) -> tuple[int, int]:
    """The channel's advisory lock, a signed 64-bit number, and its part."""
    digest = hashlib.blake2b(channel.encode(), digest_size=8, person=b"smartlink-outbox").digest()
    return int.from_bytes(digest, "big", signed=True), digest[-1] % PARTS


@lru_cache(maxsize=256)
def check_queue(name: str) -> str:
    """`name`, when it can be a queue's. Raises BroadcastConfigError."""
    if not _QUEUE.match(name):
        raise BroadcastConfigError(
            f"{name[:60]!r} is not a queue: 1 to 32 of letters, digits, hyphen, underscore and dot"
        )
    return name
