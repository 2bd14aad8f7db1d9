"""The events a worker has read but not finished: a lane per queue, channel and connection, and what may be sent next.

    read ──▶ ready ──take──▶ under way ──┬─ taken ────▶ unmarked ──marked──▶ (forgotten)
              ▲                          ├─ put back ─▶ ready
              └──── has more ────────────┴─ let go ───▶ unmarked: its state is written, and it is read again later

A lane has one call under way at a time, which keeps its order. Channels with a lane are not read again, since their
rows may have been sent but not marked yet. Everything here is synchronous.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

from smartlink.broadcasting.drivers.base import MAX_BATCH
from smartlink.broadcasting.outbox.queue import PendingEvent, place_of

__all__ = ["Call", "Lanes"]

Key = tuple[str, str, str | None]
Connection = str | None


class _Lane:
    __slots__ = ("events", "is_lost", "key", "part", "under_way", "unmarked", "was_passed_over")

    def __init__(self, key: Key, part: int) -> None:
        self.key = key
        self.part = part
        self.events: deque[PendingEvent] = deque()
        self.under_way = 0
        self.unmarked = 0
        self.was_passed_over = False
        self.is_lost = False
        """Another worker may have taken it over: events put back are read again, not sent again."""

    @property
    def queue(self) -> str:
        return self.key[0]

    @property
    def connection(self) -> Connection:
        return self.key[2]

    def may_batch(self) -> bool:
        """Return whether the next event may be sent together with others: whether it is not suspect."""
        return bool(self.events) and not self.events[0].failed_attempts


@dataclass(frozen=True, slots=True)
class Call:
    """Events to send in one call, in order. `is_alone` marks a suspect, which is sent by itself."""

    events: Sequence[PendingEvent]
    is_alone: bool

    @property
    def connection(self) -> Connection:
        """The connection of all its events."""
        return self.events[0].connection


class Lanes:
    """The lanes of one worker."""

    def __init__(self) -> None:
        self._lanes: dict[Key, _Lane] = {}
        self._ready: dict[tuple[str, Connection], deque[_Lane]] = {}
        self._suspects: dict[Connection, deque[_Lane]] = {}
        self._counts: dict[tuple[str, Connection], int] = {}

    def __len__(self) -> int:
        return len(self._lanes)

    def counts(self, queue: str) -> dict[Connection, int]:
        """Return how many events of `queue` are waiting here, by connection."""
        return {connection: count for (own, connection), count in self._counts.items() if own == queue}

    def passed_over(self, queue: str) -> list[str]:
        """Return the places (see `place_of`) of `queue` that must not be read now; notes that they may have more."""
        found = []
        for lane in self._lanes.values():
            if lane.queue == queue:
                lane.was_passed_over = True
                found.append(place_of(lane.key[1], lane.connection))
        return found

    def add(self, events: Iterable[PendingEvent]) -> None:
        """Add events that were read. Their channels must have no lane yet."""
        fresh: list[_Lane] = []
        for event in events:
            key = _key(event)
            lane = self._lanes.get(key)
            if lane is None:
                lane = self._lanes[key] = _Lane(key, event.part)
                fresh.append(lane)
            lane.events.append(event)
            counted = (event.queue, event.connection)
            self._counts[counted] = self._counts.get(counted, 0) + 1
        for lane in fresh:
            self._queue_up(lane)

    def take(
        self, queues: Iterable[str], may_go: Callable[[Connection], bool], at_most: int = MAX_BATCH
    ) -> Call | None:
        """The next call without suspects: of the first of `queues` that has any ready for a connection that `may_go`,
        filled up from the others with what goes through the same one."""
        queues = tuple(queues)
        first = next(
            (key for queue in queues for key in self._ready if key[0] == queue and self._ready[key] and may_go(key[1])),
            None,
        )
        if first is None:
            return None
        chosen: list[PendingEvent] = []
        for queue in queues:
            ready = self._ready.get((queue, first[1]))
            while ready and len(chosen) < at_most:
                lane = ready.popleft()
                while len(chosen) < at_most and lane.may_batch():
                    chosen.append(self._pop(lane))
        return Call(chosen, is_alone=False)

    def take_suspect(self, may_go: Callable[[Connection], bool]) -> Call | None:
        """Take the next suspect of a connection that `may_go`, to be sent by itself; None if there is none."""
        for connection, suspects in self._suspects.items():
            if suspects and may_go(connection):
                return Call([self._pop(suspects.popleft())], is_alone=True)
        return None

    def has_ready(self, queues: Iterable[str], connection: Connection) -> bool:
        """Return whether `take` would find events for `connection`."""
        return any(self._ready.get((queue, connection)) for queue in queues)

    def put_back(self, events: Sequence[PendingEvent]) -> bool:
        """Return unsent events to the front of their lanes, behind other lanes. Drops those of lost lanes.

        Returns whether there may be events to read again.
        """
        for event in reversed(events):
            lane = self._lanes[_key(event)]
            lane.under_way -= 1
            if not lane.is_lost:
                lane.events.appendleft(event)
                self._counts[event.queue, event.connection] += 1
        must_read = False
        for lane in tuple(self._lanes_of(events)):
            must_read |= self._drop_if_done(lane)
            if lane.events and not lane.under_way:
                self._queue_up(lane)
        return must_read

    def finish(self, events: Sequence[PendingEvent], let_go: Collection[int] = ()) -> None:
        """Note that these are no longer under way, and that their states are about to be written.

        Drops the events behind those with an id in `let_go`, which are read again in order.
        """
        for event in events:
            lane = self._lanes[_key(event)]
            lane.under_way -= 1
            lane.unmarked += 1
            if event.id in let_go:
                self._forget_events(lane)
                lane.was_passed_over = True
        for lane in self._lanes_of(events):
            if lane.events and not lane.under_way:
                self._queue_up(lane)

    def marked(self, events: Iterable[PendingEvent]) -> bool:
        """Note that the states of these are written. Returns whether their channels may have more to read."""
        may_have_more = False
        for event in events:
            lane = self._lanes[_key(event)]
            lane.unmarked -= 1
            may_have_more |= self._drop_if_done(lane)
        return may_have_more

    def drop(self, parts: Collection[tuple[str, int]]) -> None:
        """Drop the unsent events of `parts`, which belong to another worker now. Calls under way continue."""
        for lane in tuple(self._lanes.values()):
            if (lane.queue, lane.part) in parts:
                self._forget_events(lane)
                lane.was_passed_over = lane.is_lost = True
                self._drop_if_done(lane)

    def is_idle(self, part: tuple[str, int]) -> bool:
        """Return whether nothing of `part` is under way or unmarked."""
        return not any(
            (lane.queue, lane.part) == part and (lane.under_way or lane.unmarked) for lane in self._lanes.values()
        )

    def _queue_up(self, lane: _Lane) -> None:
        if lane.may_batch():
            line = self._ready.setdefault((lane.queue, lane.connection), deque())
        else:
            line = self._suspects.setdefault(lane.connection, deque())
        line.append(lane)

    def _pop(self, lane: _Lane) -> PendingEvent:
        lane.under_way += 1
        self._counts[lane.queue, lane.connection] -= 1
        return lane.events.popleft()

    def _forget_events(self, lane: _Lane) -> None:
        if lane.events:
            self._counts[lane.queue, lane.connection] -= len(lane.events)
        lane.events.clear()
        for line in (self._suspects.get(lane.connection), self._ready.get((lane.queue, lane.connection))):
            if line and lane in line:
                line.remove(lane)

    def _drop_if_done(self, lane: _Lane) -> bool:
        if lane.events or lane.under_way or lane.unmarked:
            return False
        self._lanes.pop(lane.key, None)
        return lane.was_passed_over

    def _lanes_of(self, events: Iterable[PendingEvent]) -> Iterator[_Lane]:
        return (self._lanes[key] for key in dict.fromkeys(map(_key, events)))


def _key(event: PendingEvent) -> Key:
    return event.queue, event.channel, event.connection
