"""Fan-out: one frame to every subscriber of a channel, encoded once, joined per tick, written in slices.

A channel keeps the descriptors of its subscribers in an array. Frames published during one turn of the loop wait in
`pending`; in the next turn they are joined into one batch, which is written to `SLICE` subscribers; then the loop
handles its other sockets, then the next slice follows. Beyond the write there is no object, counter or branch per
receiver.

A channel on which one batch follows another rests after each, for half of what it would take to write its frames one by
one: the next batch joins more frames, and costs less per frame. A batch of one frame is never followed by a rest.

While a batch is under way the array has three parts: [0, written) have it, [written, end) wait for it, [end, …) joined
later. A removed descriptor's place is filled from the end of its own part, so no subscriber is skipped or written to
twice, and a descriptor number that the kernel reuses for a new connection is never in an old batch.

Subscribers that cannot be written to directly (a backlog, TLS) are kept apart in `others` and get `write` instead.
Those with much waiting get a batch without its live frames, so that durable ones are not lost.
"""

from __future__ import annotations

import asyncio
import os
import time
from array import array
from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, Protocol

from smartlink.server.runtime.metrics import Metrics

if TYPE_CHECKING:
    from smartlink.server.core.conflation import Conflated

__all__ = ["MAX_PENDING_BYTES", "FanOut", "Subscriber", "Subscribers"]

SLICE = 250
MAX_PENDING_BYTES = 262_144
"""Bytes that may wait on a channel before its publishers have to wait."""
MAX_REST_S = 0.005
CYCLE_S = 0.01
"""A batch and its rest together; a longer batch rests for `MAX_REST_S`."""
MAX_REST_BYTES = MAX_PENDING_BYTES // 4
MIN_REST_S = 0.001
"""Event loops keep time in milliseconds; less is not worth a timer."""
MAX_LIVE_BACKLOG_BYTES = 131_072
"""Bytes that may wait for a subscriber before live frames are dropped for it."""


class Subscriber(Protocol):
    """A connection as fan-out needs it."""

    @property
    def descriptor(self) -> int:
        """The descriptor to write to directly, or -1 to use `write`."""

    @property
    def backlog(self) -> int:
        """Bytes that wait for this subscriber."""

    def write(self, data: bytes) -> None:
        """Send whole frames; never waits, never raises."""

    def fell_behind(self, rest: bytes) -> None:
        """Keep `rest`, which the kernel did not take. `descriptor` is -1 from now until the subscriber catches up."""

    def vanished(self) -> None:
        """The descriptor is broken."""


_NONE: Final[dict[Any, Any]] = {}
"""An empty dictionary shared by channels, most of which would have three of their own. Never written to."""


class Subscribers:
    """The subscribers of one channel, and the frames on their way to them."""

    __slots__ = (
        "_batch",
        "_batch_position",
        "_done_position",
        "_end",
        "_late",
        "_left_out",
        "_live",
        "_own",
        "_position",
        "_written",
        "batch_frames",
        "batch_since",
        "batch_spans",
        "begun_at",
        "conflated",
        "descriptors",
        "is_queued",
        "others",
        "pending",
        "pending_bytes",
        "pending_since",
        "position",
        "queued_at",
        "spans",
        "waiters",
    )

    def __init__(self) -> None:
        self.descriptors = array("i")
        self._position: dict[int, int] = {}
        self.others: dict[Subscriber, None] = {}
        self.pending: list[bytes] = []
        self.pending_bytes = 0
        self._late: dict[Subscriber, int] = _NONE
        """How many frames were pending when this subscriber joined."""
        self._left_out: dict[Subscriber, dict[int, bytes]] = _NONE
        """By index of a pending frame that this subscriber does not get: what it gets instead, which may be empty."""
        self._live: set[int] | None = None
        """Indexes of the pending frames that are live."""
        self._batch = b""
        self._own: dict[int, bytes] = _NONE
        """By descriptor: what a subscriber gets instead of the batch."""
        self._written = self._end = 0
        self.is_queued = False
        self.batch_frames = 0
        """How many frames the newest batch holds."""
        self.begun_at = 0.0
        """When the newest batch was begun."""
        self.queued_at = 0.0
        """When the first of the frames pending or under way was published."""
        self.pending_since = self.batch_since = 0.0
        """When the first of the pending frames, and of those in the batch, was published; 0 if unknown."""
        self.spans: tuple[Any, ...] = ()
        """Spans that end when the pending frames are written to all."""
        self.batch_spans: tuple[Any, ...] = ()
        self.waiters: list[asyncio.Future[None]] = []
        self.position = self._batch_position = self._done_position = 0
        """Of the last event published, of the last in the newest batch, and of the last in the batch before that."""
        self.conflated: Conflated | None = None
        """What delays events on this channel, if its policy says so."""

    def __len__(self) -> int:
        return len(self.descriptors) + len(self.others)

    def __contains__(self, subscriber: object) -> bool:
        return subscriber in self.others or getattr(subscriber, "descriptor", -1) in self._position

    def add(self, subscriber: Subscriber) -> None:
        """Add a subscriber; it gets nothing that was published before."""
        if self.pending:
            self._late = self._late or {}
            self._late[subscriber] = len(self.pending)
        self.attach(subscriber)

    def attach(self, subscriber: Subscriber) -> None:
        """Sort a subscriber by whether it can be written to directly now."""
        descriptor = subscriber.descriptor
        if descriptor < 0:
            self.others[subscriber] = None
            return
        self.others.pop(subscriber, None)
        self._position[descriptor] = len(self.descriptors)
        self.descriptors.append(descriptor)

    def remove(self, subscriber: Subscriber, descriptor: int) -> None:
        """Remove a subscriber at once; it gets nothing any more. `descriptor` is the one it was attached with."""
        if self._late or self._left_out:
            self._late.pop(subscriber, None)
            self._left_out.pop(subscriber, None)
        if descriptor in self._position:
            self._take_out(descriptor)
        else:
            self.others.pop(subscriber, None)

    def set_aside(self, subscriber: Subscriber, descriptor: int) -> None:
        """Move a subscriber that fell behind to `others`, and send it the batch under way if it has not had it."""
        position = self._position.get(descriptor)
        if position is None:
            return
        owed = self._own.get(descriptor, self._batch) if self._written <= position < self._end else b""
        self._take_out(descriptor)
        self.others[subscriber] = None
        if owed:
            subscriber.write(owed)

    def publish(
        self,
        frame: bytes,
        *left_out: Subscriber,
        is_live: bool = False,
        published_at: float = 0.0,
        instead: Mapping[Subscriber, bytes] = _NONE,
    ) -> None:
        """Append a frame to the pending ones. `instead` is for subscribers that get another one in its place."""
        if not self.pending:
            self.pending_since = published_at
        if is_live:
            if self._live is None:
                self._live = set()
            self._live.add(len(self.pending))
        if left_out or instead:
            self._left_out = self._left_out or {}
        for subscriber in left_out:
            self._left_out.setdefault(subscriber, {})[len(self.pending)] = b""
        for subscriber, other in instead.items():
            self._left_out.setdefault(subscriber, {})[len(self.pending)] = other
        self.pending.append(frame)
        self.pending_bytes += len(frame)

    @property
    def batch_bytes(self) -> int:
        """Bytes of the batch under way."""
        return len(self._batch)

    @property
    def is_under_way(self) -> bool:
        return self._written < self._end

    @property
    def written_position(self) -> int:
        """The position up to which all subscribers have been written everything."""
        return self._done_position if self.is_under_way else self._batch_position

    def begin(self) -> tuple[int, int]:
        """Join the pending frames into a batch and send it to `others`.

        Returns how many frames it holds, and how many live ones were dropped for subscribers with much waiting.
        """
        frames = self.pending
        late, left_out = self._late, self._left_out
        live, self._live = self._live, None
        dropped = 0
        self.pending = []
        self.pending_bytes = 0
        self.batch_since = self.pending_since
        self.batch_spans, self.spans = self.spans, ()
        self._batch = frames[0] if len(frames) == 1 else b"".join(frames)
        own: dict[Subscriber, bytes] = {}
        if late or left_out:
            self._late, self._left_out = _NONE, _NONE
            for subscriber in late.keys() | left_out.keys():
                other: dict[int, bytes] = left_out.get(subscriber, _NONE)
                own[subscriber] = b"".join(
                    other.get(index, frame) for index, frame in enumerate(frames) if index >= late.get(subscriber, 0)
                )
        self._own = {s.descriptor: data for s, data in own.items() if s.descriptor >= 0} if own else _NONE
        self._written = 0
        self._end = len(self.descriptors)
        self._done_position, self._batch_position = self._batch_position, self.position
        for subscriber in tuple(self.others):
            data = own.get(subscriber, self._batch) if own else self._batch
            if live and subscriber.backlog > MAX_LIVE_BACKLOG_BYTES:
                start, other = late.get(subscriber, 0), left_out.get(subscriber, _NONE)
                data = b"".join(
                    other.get(index, frame)
                    for index, frame in enumerate(frames)
                    if index >= start and index not in live
                )
                dropped += sum(index >= start and other.get(index) != b"" for index in live)
            if data:
                subscriber.write(data)
        waiters, self.waiters = self.waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)
        return len(frames), dropped

    def advance(self, count: int) -> tuple[int, list[tuple[int, bytes]], list[int]]:
        """Write the batch to the next `count` subscribers.

        Returns how many were written to, the descriptors that fell behind with what each has not had, and the broken
        ones.
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
    """Sends the pending frames of all channels, a slice per turn of the loop; channels take turns."""

    def __init__(
        self,
        call_soon: Callable[[Callable[[], None]], object],
        call_later: Callable[[float, Callable[[Subscribers], None], Subscribers], object],
        by_descriptor: Callable[[int], Subscriber | None],
        metrics: Metrics,
    ) -> None:
        self._call_soon = call_soon
        self._call_later = call_later
        self._by_descriptor = by_descriptor
        self._metrics = metrics
        self._queue: deque[Subscribers] = deque()
        self._is_scheduled = False

    def publish(
        self,
        channel: Subscribers,
        frame: bytes,
        *left_out: Subscriber,
        is_live: bool = False,
        published_at: float = 0.0,
        instead: Mapping[Subscriber, bytes] = _NONE,
    ) -> None:
        """Send `frame`, encoded for the wire, to the subscribers of `channel` but `left_out`. Returns at once.

        `published_at` is when it was published, in seconds since 1970; 0 if that is not to be measured. `instead` holds
        the frames of those who get another one in its place, or with an empty one nothing.
        """
        channel.publish(frame, *left_out, is_live=is_live, published_at=published_at, instead=instead)
        if not channel.is_queued:
            channel.is_queued = True
            channel.queued_at = time.perf_counter()
            self._enqueue(channel)

    def _enqueue(self, channel: Subscribers) -> None:
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
                channel.begun_at = time.perf_counter()
                frames, dropped = channel.begin()
                channel.batch_frames = frames
                self._metrics.deliveries += frames * receivers - dropped
                self._metrics.live_dropped += dropped
                # Bytes to `others` are counted where they are written.
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
                for span in channel.batch_spans:
                    span.end()
                if channel.batch_since:
                    # Clocks of two machines may differ.
                    self._metrics.delivery.observe(max(0.0, time.time() - channel.batch_since))
                took_s = now - channel.begun_at
                rest_s = min(took_s * channel.batch_frames / 2, max(CYCLE_S - took_s, MAX_REST_S))
                if channel.batch_frames > 1 and took_s >= MIN_REST_S and channel.pending_bytes < MAX_REST_BYTES:
                    queue.popleft()
                    self._call_later(rest_s, self._enqueue, channel)
                    continue
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
