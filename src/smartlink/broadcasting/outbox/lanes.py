"""What a worker has read and not yet finished, in memory: a lane per channel and queue, and what may go next.

    read ──▶ ready ──take──▶ under way ──┬─ taken ────▶ unmarked ──marked──▶ (forgotten)
              ▲                          ├─ put back ─▶ ready
              └──── has more ────────────┴─ let go ───▶ unmarked: its state is written, and it is read again later

A lane has one call under way at a time, which keeps its order. A channel that is in here is not read again, for its
rows may have been sent and not yet been marked. Plain and synchronous: nothing here waits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

from smartlink.broadcasting.drivers.base import MAX_BATCH
from smartlink.broadcasting.outbox.queue import Waiting

__all__ = ["Call", "Lanes"]

Key = tuple[str, str]


class _Lane:
    __slots__ = ("events", "key", "part", "under_way", "unmarked", "was_passed_over")

    def __init__(self, key: Key, part: int) -> None:
        self.key = key
        self.part = part
        self.events: deque[Waiting] = deque()
        self.under_way = 0
        self.unmarked = 0
        self.was_passed_over = False

    def goes_with(self, others: Sequence[Waiting]) -> bool:
        """Whether the next event may travel together with these."""
        if not self.events or self.events[0].strikes:
            return False
        return not others or self.events[0].connection == others[0].connection


@dataclass(frozen=True, slots=True)
class Call:
    """Events that travel together, in order; `is_alone` for one that may be the reason why calls failed."""

    events: Sequence[Waiting]
    is_alone: bool


class Lanes:
    """The lanes of one worker."""

    def __init__(self) -> None:
        self._lanes: dict[Key, _Lane] = {}
        self._ready: dict[str, deque[_Lane]] = {}
        self._suspects: deque[_Lane] = deque()
        self._counts: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._lanes)

    def count(self, queue: str) -> int:
        """How many events of `queue` wait in here."""
        return self._counts.get(queue, 0)

    def passed_over(self, queue: str) -> list[str]:
        """Channels of `queue` that must not be read now; remembers that there may be more of them to read."""
        found = []
        for lane in self._lanes.values():
            if lane.key[0] == queue:
                lane.was_passed_over = True
                found.append(lane.key[1])
        return found

    def add(self, events: Iterable[Waiting]) -> None:
        """Take in what was read, of channels that were not in here."""
        fresh: list[_Lane] = []
        for event in events:
            key = (event.queue, event.channel)
            lane = self._lanes.get(key)
            if lane is None:
                lane = self._lanes[key] = _Lane(key, event.part)
                fresh.append(lane)
            lane.events.append(event)
            self._counts[event.queue] = self._counts.get(event.queue, 0) + 1
        for lane in fresh:
            self._queue_up(lane)

    def take(self, queues: Iterable[str], at_most: int = MAX_BATCH) -> Call | None:
        """The next call without suspects: of the first of `queues` that has any ready, filled up from the others with
        what goes through the same connection."""
        chosen: list[Waiting] = []
        for queue in queues:
            ready = self._ready.get(queue, deque())
            for _ in range(len(ready)):
                if len(chosen) >= at_most:
                    break
                lane = ready.popleft()
                while len(chosen) < at_most and lane.goes_with(chosen):
                    chosen.append(self._pop(lane))
                if not lane.under_way:
                    # It goes through another connection, in another call.
                    ready.append(lane)
        return Call(chosen, is_alone=False) if chosen else None

    def take_suspect(self) -> Call | None:
        """The next event that has to travel alone."""
        if not self._suspects:
            return None
        return Call([self._pop(self._suspects.popleft())], is_alone=True)

    def has_ready(self, queues: Iterable[str]) -> bool:
        """Whether `take` would find something."""
        return any(self._ready.get(queue) for queue in queues)

    def put_back(self, events: Sequence[Waiting]) -> None:
        """What was under way has not been taken, through no fault of its own. It is the next of its channel again,
        but other channels get their turn before."""
        for event in reversed(events):
            lane = self._lanes[event.queue, event.channel]
            lane.events.appendleft(event)
            lane.under_way -= 1
            self._counts[event.queue] += 1
        for lane in self._lanes_of(events):
            if not lane.under_way:
                self._queue_up(lane)

    def finish(self, events: Sequence[Waiting], let_go: Collection[int] = ()) -> None:
        """These are no longer under way, and their states are about to be written.

        What is behind an event whose id is in `let_go` is forgotten, to be read again in order.
        """
        for event in events:
            lane = self._lanes[event.queue, event.channel]
            lane.under_way -= 1
            lane.unmarked += 1
            if event.id in let_go:
                self._forget_events(lane)
                lane.was_passed_over = True
        for lane in self._lanes_of(events):
            if lane.events and not lane.under_way:
                self._queue_up(lane)

    def marked(self, events: Iterable[Waiting]) -> bool:
        """The states of these are written; whether there may be more to read of their channels."""
        may_have_more = False
        for event in events:
            lane = self._lanes[event.queue, event.channel]
            lane.unmarked -= 1
            may_have_more |= self._drop_if_done(lane)
        return may_have_more

    def drop(self, parts: Collection[tuple[str, int]]) -> None:
        """Forget what has not been sent of `parts`: they are another worker's now. What is under way stays."""
        for lane in tuple(self._lanes.values()):
            if (lane.key[0], lane.part) in parts:
                self._forget_events(lane)
                lane.was_passed_over = True
                self._drop_if_done(lane)

    def clear(self) -> None:
        """Forget everything."""
        self._lanes.clear()
        self._ready.clear()
        self._suspects.clear()
        self._counts.clear()

    def is_idle(self, part: tuple[str, int]) -> bool:
        """Whether nothing of `part` is under way or unmarked."""
        return not any(
            (lane.key[0], lane.part) == part and (lane.under_way or lane.unmarked) for lane in self._lanes.values()
        )

    def _queue_up(self, lane: _Lane) -> None:
        is_suspect = lane.events[0].strikes > 0
        line = self._suspects if is_suspect else self._ready.setdefault(lane.key[0], deque())
        line.append(lane)

    def _pop(self, lane: _Lane) -> Waiting:
        lane.under_way += 1
        self._counts[lane.key[0]] -= 1
        return lane.events.popleft()

    def _forget_events(self, lane: _Lane) -> None:
        self._counts[lane.key[0]] -= len(lane.events)
        lane.events.clear()
        for line in (self._suspects, self._ready.get(lane.key[0])):
            if line and lane in line:
                line.remove(lane)

    def _drop_if_done(self, lane: _Lane) -> bool:
        if lane.events or lane.under_way or lane.unmarked:
            return False
        self._lanes.pop(lane.key, None)
        return lane.was_passed_over

    def _lanes_of(self, events: Iterable[Waiting]) -> Iterator[_Lane]:
        keys = dict.fromkeys((event.queue, event.channel) for event in events)
        return (self._lanes[key] for key in keys)
