"""The history of one node, alone."""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence

from smartlink.server.history.base import Entry

__all__ = ["MemoryHistory"]

MAX_CHANNELS = 100_000
"""Channels of all apps that are kept; beyond, the one that was written longest ago is forgotten."""


class _Kept:
    __slots__ = ("entries", "position")

    def __init__(self, keep: int) -> None:
        self.position = 0
        self.entries: deque[tuple[int, bytes, float]] = deque(maxlen=keep)
        """Position, frame, and when its time is over."""


class MemoryHistory:
    """A `History` within one process. Keeps the last `keep` events of each channel."""

    def __init__(self, keep: int = 1, now: Callable[[], float] = time.monotonic) -> None:
        self._keep = keep
        self._now = now
        self._channels: OrderedDict[tuple[str, str], _Kept] = OrderedDict()

    async def append(self, app_id: str, channel: str, frame: bytes, ttl_s: float) -> int:
        key = (app_id, channel)
        kept = self._channels.get(key)
        if kept is None:
            kept = self._channels[key] = _Kept(self._keep)
            if len(self._channels) > MAX_CHANNELS:
                self._channels.popitem(last=False)
        self._channels.move_to_end(key)
        kept.position += 1
        kept.entries.append((kept.position, frame, self._now() + ttl_s))
        return kept.position

    async def latest(self, app_id: str, channel: str) -> Entry | None:
        kept = self._channels.get((app_id, channel))
        if kept is None:
            return None
        position, frame, until = kept.entries[-1]
        left_s = until - self._now()
        return Entry(position, frame, left_s) if left_s > 0 else None

    async def since(self, app_id: str, channel: str, position: int) -> Sequence[Entry] | None:
        kept = self._channels.get((app_id, channel))
        if kept is None:
            return () if position == 0 else None
        now = self._now()
        entries = [Entry(at, frame, until - now) for at, frame, until in kept.entries if at > position and until > now]
        is_whole = position + len(entries) == kept.position
        return entries if is_whole else None
