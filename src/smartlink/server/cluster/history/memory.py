"""The history of a single node."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from smartlink.server.cluster.budgets import BoundedStore
from smartlink.server.cluster.history.base import MAX_APP_BYTES, POSITION_KEPT_S, HistoryEntry

__all__ = ["MemoryHistory"]

SHARED_FROM = 256
"""Size after the channel's name from which the end of a frame is stored once for all channels that share it."""
PER_CHANNEL, PER_ENTRY, PER_END, PER_POSITION = 400, 200, 300, 350
"""Overhead in bytes of each, measured and rounded up."""


class _Suffix:
    """The end of a frame after the channel's name, and the number of entries that share it."""

    __slots__ = ("entries", "text")

    def __init__(self, text: bytes) -> None:
        self.text = text
        self.entries = 0

    @property
    def size(self) -> int:
        return PER_END + len(self.text)


class _Event:
    __slots__ = ("end", "position", "start", "until")

    def __init__(self, position: int, start: bytes, end: _Suffix | None, until: float) -> None:
        self.position = position
        self.start = start
        self.end = end
        self.until = until

    def entry(self, now: float) -> HistoryEntry:
        frame = self.start if self.end is None else self.start + self.end.text
        return HistoryEntry(self.position, frame, self.until - now)


class MemoryHistory:
    """A `History` within one process. Keeps the last `keep` events of each channel.

    An event sent to many channels is stored once.
    """

    def __init__(
        self, keep: int = 1, now: Callable[[], float] = time.monotonic, max_app_bytes: int = MAX_APP_BYTES
    ) -> None:
        self._keep = keep
        self._now = now
        self._channels: BoundedStore[str, tuple[_Event, ...]] = BoundedStore(max_app_bytes, now, self._drop)
        self._positions: BoundedStore[str, int] = BoundedStore(max_app_bytes // 4, now)
        """Of channels without stored events."""
        self._ends: dict[tuple[str, bytes], _Suffix] = {}

    def used(self, app_id: str) -> int:
        """Bytes currently used by the application's events."""
        return self._channels.used(app_id)

    async def append(self, app_id: str, channel: str, frame: bytes, ttl_s: float) -> int:
        now = self._now()
        former = self._channels.take(app_id, channel) or ()
        position = 1 + (former[-1].position if former else self._positions.take(app_id, channel) or 0)
        event = self._event(app_id, channel, frame, position, now + ttl_s)
        events = (*(past for past in former if past.until > now), event)[-self._keep :]
        self._release(app_id, [past for past in former if past not in events])
        size = PER_CHANNEL + len(channel) + sum(PER_ENTRY + len(each.start) for each in events)
        self._channels.put(app_id, channel, events, size, ttl_s)
        return position

    async def latest(self, app_id: str, channel: str) -> HistoryEntry | None:
        events = self._channels.get(app_id, channel)
        return None if events is None else events[-1].entry(self._now())

    async def since(self, app_id: str, channel: str, position: int) -> Sequence[HistoryEntry] | None:
        now = self._now()
        events = self._channels.get(app_id, channel)
        if events is None:
            return () if position == (self._positions.get(app_id, channel) or 0) else None
        after = [event.entry(now) for event in events if event.position > position and event.until > now]
        return after if position + len(after) == events[-1].position else None

    def _event(self, app_id: str, channel: str, frame: bytes, position: int, until: float) -> _Event:
        """Split the frame into two parts; the second is shared by all channels that the event was sent to."""
        split = frame.find(channel.encode()) + len(channel)
        if len(frame) - split < SHARED_FROM:
            return _Event(position, frame, None, until)
        text = frame[split:]
        end = self._ends.get((app_id, text))
        if end is None:
            end = self._ends[app_id, text] = _Suffix(text)
            self._channels.charge(app_id, end.size)
        end.entries += 1
        return _Event(position, frame[:split], end, until)

    def _release(self, app_id: str, events: Sequence[_Event]) -> None:
        for event in events:
            if (end := event.end) is not None:
                end.entries -= 1
                if not end.entries:
                    del self._ends[app_id, end.text]
                    self._channels.charge(app_id, -end.size)

    def _drop(self, app_id: str, channel: str, events: tuple[_Event, ...]) -> None:
        self._positions.put(app_id, channel, events[-1].position, PER_POSITION + len(channel), POSITION_KEPT_S)
        self._release(app_id, events)
