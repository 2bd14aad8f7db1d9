"""Fan-out: one frame to every subscriber of a channel, encoded once, joined per tick, written in slices.

A channel keeps the descriptors of its subscribers in an array. Frames published during one turn of the loop wait in
`pending`; the turn after they are joined into one piece of bytes and written to `SLICE` subscribers, then the loop
looks after its other sockets, then to the next slice. No object, counter or branch per receiver beyond the write.

While a batch is under way the array has three parts: [0, written) have it, [written, end) wait for it, [end, …) came
later. Taking a descriptor out fills the hole from the end of its own part, so nobody is passed over or written twice,
and a descriptor number that the kernel gives to a newcomer is never in an old batch.

Subscribers that cannot be written directly (a backlog, TLS) are kept apart in `others` and get `write` instead. Those
of them that have much waiting get a batch without its live frames: what may be lost gives way to what may not.
"""

from __future__ import annotations

import asyncio
import os
import time
from array import array
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Protocol

from smartlink.server.runtime.metrics import Metrics

__all__ = ["MAX_PENDING_BYTES", "FanOut", "Subscriber", "Subscribers"]

SLICE = 250
MAX_PENDING_BYTES = 262_144
"""Bytes a channel may have waiting before its publishers are made to wait."""
MAX_LIVE_BACKLOG_BYTES = 131_072
"""Bytes a subscriber may have waiting before live frames are left out for it."""


class Subscriber(Protocol):
    """What fan-out needs of a connection."""

    @property
    def descriptor(self) -> int:
        """The descriptor to write to directly, or -1: then `write` is used."""

    @property
    def backlog(self) -> int:
        """Bytes that wait for this subscriber."""

    def write(self, data: bytes) -> None:
        """Take whole frames; never waits, never raises."""

    def fell_behind(self, rest: bytes) -> None:
        """The kernel took only part; `rest` is what is left. `descriptor` is -1 from now until it has caught up."""

    def vanished(self) -> None:
        """The descriptor is broken."""


_NONE: Final[dict[Any, Any]] = {}
"""Stands for a dictionary with nothing in it, of which most channels would have three. Never written to."""


class Subscribers:
    """The subscribers of one channel, and what is on its way to them."""

    __slots__ = (
        "_batch",
        "_end",
        "_late",
        "_left_out",
        "_live",
        "_own",
        "_position",
        "_written",
        "descriptors",
        "is_queued",
        "others",
        "pending",
        "pending_bytes",
        "queued_at",
        "waiters",
    )

    def __init__(self) -> None:
        self.descriptors = array("i")
        self._position: dict[int, int] = {}
        self.others: dict[Subscriber, None] = {}
        self.pending: list[bytes] = []
        self.pending_bytes = 0
        self._late: dict[Subscriber, int] = _NONE
        """How many of the pending frames were there before this subscriber came."""
        self._left_out: dict[Subscriber, set[int]] = _NONE
        """Which of the pending frames this subscriber does not get."""
        self._live: set[int] | None = None
        """Which of the pending frames are live."""
        self._batch = b""
        self._own: dict[int, bytes] = _NONE
        """By descriptor: what some get instead of the batch."""
        self._written = self._end = 0
        self.is_queued = False
        self.queued_at = 0.0
        """When the first of the frames pending or under way came."""
        self.waiters: list[asyncio.Future[None]] = []

    def __len__(self) -> int:
        return len(self.descriptors) + len(self.others)

    def __contains__(self, subscriber: object) -> bool:
        return subscriber in self.others or getattr(subscriber, "descriptor", -1) in self._position

    def add(self, subscriber: Subscriber) -> None:
        """Add a newcomer: nothing that was published before reaches it."""
        if self.pending:
            self._late = self._late or {}
            self._late[subscriber] = len(self.pending)
        self.attach(subscriber)

    def attach(self, subscriber: Subscriber) -> None:
        """Put a subscriber where it can be written now."""
        descriptor = subscriber.descriptor
        if descriptor < 0:
            self.others[subscriber] = None
            return
        self.others.pop(subscriber, None)
        self._position[descriptor] = len(self.descriptors)
        self.descriptors.append(descriptor)

    def remove(self, subscriber: Subscriber, descriptor: int) -> None:
        """Take a subscriber out at once; nothing reaches it any more. `descriptor` as it was when attached."""
        if self._late or self._left_out:
            self._late.pop(subscriber, None)
            self._left_out.pop(subscriber, None)
        if descriptor in self._position:
            self._take_out(descriptor)
        else:
            self.others.pop(subscriber, None)

    def set_aside(self, subscriber: Subscriber, descriptor: int) -> None:
        """Move a subscriber that fell behind to `others`, with what the batch under way still owes it."""
        position = self._position.get(descriptor)
        if position is None:
            return
        owed = self._own.get(descriptor, self._batch) if self._written <= position < self._end else b""
        self._take_out(descriptor)
        self.others[subscriber] = None
        if owed:
            subscriber.write(owed)

    def publish(self, frame: bytes, *left_out: Subscriber, is_live: bool = False) -> None:
        """Append a frame to what goes out next."""
        if is_live:
            if self._live is None:
                self._live = set()
            self._live.add(len(self.pending))
        if left_out:
            self._left_out = self._left_out or {}
        for subscriber in left_out:
            self._left_out.setdefault(subscriber, set()).add(len(self.pending))
        self.pending.append(frame)
        self.pending_bytes += len(frame)

    @property
    def batch_bytes(self) -> int:
        """Bytes of the batch under way."""
        return len(self._batch)

    @property
    def is_under_way(self) -> bool:
        return self._written < self._end

    def begin(self) -> tuple[int, int]:
        """Join what is pending into a batch and hand it to `others`.

        Returns how many frames it holds, and how many live ones were left out for those who have much waiting.
        """
        frames = self.pending
        late, left_out = self._late, self._left_out
        live, self._live = self._live, None
        dropped = 0
        self.pending = []
        self.pending_bytes = 0
        self._batch = frames[0] if len(frames) == 1 else b"".join(frames)
        own: dict[Subscriber, bytes] = {}
        if late or left_out:
            self._late, self._left_out = _NONE, _NONE
            for subscriber in late.keys() | left_out.keys():
                without = left_out.get(subscriber, ())
                own[subscriber] = b"".join(
                    frame
                    for index, frame in enumerate(frames)
                    if index >= late.get(subscriber, 0) and index not in without
                )
        self._own = {s.descriptor: data for s, data in own.items() if s.descriptor >= 0} if own else _NONE
        self._written = 0
        self._end = len(self.descriptors)
        for subscriber in tuple(self.others):
            data = own.get(subscriber, self._batch) if own else self._batch
            if live and subscriber.backlog > MAX_LIVE_BACKLOG_BYTES:
                start, without = late.get(subscriber, 0), left_out.get(subscriber, set())
                data = b"".join(
                    frame
                    for index, frame in enumerate(frames)
                    if index >= start and index not in without and index not in live
                )
                dropped += sum(index >= start and index not in without for index in live)
            if data:
                subscriber.write(data)
        waiters, self.waiters = self.waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)
        return len(frames), dropped

    def advance(self, count: int) -> tuple[int, list[tuple[int, bytes]], list[int]]:
        """Write the batch to the next `count` subscribers.

        Returns how many were written to, those that fell behind with what is left for each, and those that broke.
        """
        batch, own, write = self._batch, self._own, os.write
        size = len(batch)
        behind: list[tuple[int, bytes]] = []
        broken: list[int] = []
        part = self.descriptors[self._written : min(self._end, self._written + count)]
        if not own:
            for descriptor in part:
                try:
                    sent = write(descriptor, batch)
                    if sent != size:
                        behind.append((descriptor, batch[sent:]))
                except BlockingIOError:
                    behind.append((descriptor, batch))
                except OSError:
                    broken.append(descriptor)
        else:
            for descriptor in part:
                data = own.get(descriptor, batch)
                if not data:
                    continue
                try:
                    sent = write(descriptor, data)
                    if sent != len(data):
                        behind.append((descriptor, data[sent:]))
                except BlockingIOError:
                    behind.append((descriptor, data))
                except OSError:
                    broken.append(descriptor)
        self._written += len(part)
        if self._written >= self._end:
            self._written = self._end = 0
            self._batch = b""
            self._own = _NONE
        return len(part), behind, broken

    def _take_out(self, descriptor: int) -> None:
        hole = self._position.pop(descriptor)
        if hole < self._written:
            self._written -= 1
            hole = self._fill(hole, self._written)
        if hole < self._end:
            self._end -= 1
            hole = self._fill(hole, self._end)
        self._fill(hole, len(self.descriptors) - 1)
        self.descriptors.pop()
        self._own.pop(descriptor, None)

    def _fill(self, hole: int, source: int) -> int:
        if hole != source:
            moved = self.descriptors[source]
            self.descriptors[hole] = moved
            self._position[moved] = hole
        return source


class FanOut:
    """Sees that every channel's pending frames go out, a slice per turn of the loop, channels taking turns."""

    def __init__(
        self,
        call_soon: Callable[[Callable[[], None]], object],
        by_descriptor: Callable[[int], Subscriber | None],
        metrics: Metrics,
    ) -> None:
        self._call_soon = call_soon
        self._by_descriptor = by_descriptor
        self._metrics = metrics
        self._queue: deque[Subscribers] = deque()
        self._is_scheduled = False

    def publish(self, channel: Subscribers, frame: bytes, *left_out: Subscriber, is_live: bool = False) -> None:
        """Send `frame`, ready for the wire, to all of `channel` but those left out. Returns at once."""
        channel.publish(frame, *left_out, is_live=is_live)
        if not channel.is_queued:
            channel.is_queued = True
            channel.queued_at = time.perf_counter()
            self._queue.append(channel)
            if not self._is_scheduled:
                self._is_scheduled = True
                self._call_soon(self._turn)

    def _turn(self) -> None:
        budget = SLICE
        queue = self._queue
        while queue and budget > 0:
            channel = queue[0]
            if not channel.is_under_way:
                if not channel.pending:
                    queue.popleft()
                    channel.is_queued = False
                    continue
                receivers = len(channel)
                frames, dropped = channel.begin()
                self._metrics.deliveries += frames * receivers - dropped
                self._metrics.live_dropped += dropped
                # What the others get is counted where it is written.
                self._metrics.bytes_sent += channel.batch_bytes * len(channel.descriptors)
                budget -= 1 + len(channel.others)
            if channel.is_under_way:
                count, behind, broken = channel.advance(max(budget, 1))
                budget -= count
                if behind or broken:
                    self._tend(behind, broken)
            if not channel.is_under_way:
                now = time.perf_counter()
                self._metrics.fanout.observe(now - channel.queued_at)
                channel.queued_at = now
            if len(queue) > 1:
                queue.rotate(-1)
        if queue:
            self._call_soon(self._turn)
        else:
            self._is_scheduled = False

    def _tend(self, behind: list[tuple[int, bytes]], broken: list[int]) -> None:
        for descriptor, rest in behind:
            subscriber = self._by_descriptor(descriptor)
            if subscriber is not None:
                subscriber.fell_behind(rest)
        for descriptor in broken:
            subscriber = self._by_descriptor(descriptor)
            if subscriber is not None:
                subscriber.vanished()
