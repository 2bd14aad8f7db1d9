"""What a worker has read and not yet finished, in memory: a lane per queue, channel and connection; what may go next.

    read ──▶ ready ──take──▶ under way ──┬─ taken ────▶ unmarked ──marked──▶ (forgotten)
              ▲                          ├─ put back ─▶ ready
              └──── has more ────────────┴─ let go ───▶ unmarked: its state is written, and it is read again later

A lane has one call under way at a time, which keeps its order. What has a lane in here is not read again, for its
rows may have been sent and not yet been marked. Plain and synchronous: nothing here waits.
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
        """Another worker may have had it meanwhile: what comes back is read again, not sent again."""

    @property
    def queue(self) -> str:
        return self.key[0]

    @property
    def connection(self) -> Connection:
        return self.key[2]

    def may_go_on(self) -> bool:
        """Whether the next event may travel together with others."""
        return bool(self.events) and not self.events[0].strikes


@dataclass(frozen=True, slots=True)
class Call:
    """Events that travel together, in order; `is_alone` for one that may be the reason why calls failed."""

    events: Sequence[PendingEvent]
    is_alone: bool

    @property
    def connection(self) -> Connection:
        """What all of them travel through."""
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
        """How many events of `queue` wait in here, for each connection it has had any for."""
        return {connection: count for (own, connection), count in self._counts.items() if own == queue}

    def passed_over(self, queue: str) -> list[str]:
        """What of `queue` must not be read now, as `place_of` says it; remembers that there may be more to read."""
        found = []
        for lane in self._lanes.values():
            if lane.queue == queue:
                lane.was_passed_over = True
                found.append(place_of(lane.key[1], lane.connection))
        return found

    def add(self, events: Iterable[PendingEvent]) -> None:
        """Take in what was read, of lanes that were not in here."""
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
                while len(chosen) < at_most and lane.may_go_on():
                    chosen.append(self._pop(lane))
        return Call(chosen, is_alone=False)

    def take_suspect(self, may_go: Callable[[Connection], bool]) -> Call | None:
        """The next event that has to travel alone, through a connection that `may_go`."""
        for connection, suspects in self._suspects.items():
            if suspects and may_go(connection):
                return Call([self._pop(suspects.popleft())], is_alone=True)
        return None

    def has_ready(self, queues: Iterable[str], connection: Connection) -> bool:
        """Whether `take` would find something for `connection`."""
        return any(self._ready.get((queue, connection)) for queue in queues)

    def put_back(self, events: Sequence[PendingEvent]) -> bool:
        """What was under way has not been taken, through no fault of its own. It is the next of its channel again,
        but other channels get their turn before. What is not ours any more is forgotten; whether that leaves
        anything to read again."""
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
        """These are no longer under way, and their states are about to be written.

        What is behind an event whose id is in `let_go` is forgotten, to be read again in order.
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
        """The states of these are written; whether there may be more to read of their channels."""
        may_have_more = False
        for event in events:
            lane = self._lanes[_key(event)]
            lane.unmarked -= 1
            may_have_more |= self._drop_if_done(lane)
        return may_have_more

    def drop(self, parts: Collection[tuple[str, int]]) -> None:
        """Forget what has not been sent of `parts`: they are another worker's now. What is under way stays."""
        for lane in tuple(self._lanes.values()):
            if (lane.queue, lane.part) in parts:
                self._forget_events(lane)
                lane.was_passed_over = lane.is_lost = True
                self._drop_if_done(lane)

    def is_idle(self, part: tuple[str, int]) -> bool:
        """Whether nothing of `part` is under way or unmarked."""
        return not any(
            (lane.queue, lane.part) == part and (lane.under_way or lane.unmarked) for lane in self._lanes.values()
        )

    def _queue_up(self, lane: _Lane) -> None:
        if lane.may_go_on():
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
