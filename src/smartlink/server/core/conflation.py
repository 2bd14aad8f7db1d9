"""Conflation: on channels whose policy says so, each subscriber gets an event of a name only now and then.

The first event of a name goes out at once. Those that follow within the period wait, and of each name only the last is
kept. When the period of every waiting name is over, all go out in the order in which they were published: nothing
overtakes, and the positions of a channel's events keep rising. What waits is not on its way yet: a session's position
moves past a replaced event when the later one is written.

A channel without such a policy has no `Conflated`, and fan-out does nothing for it.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from smartlink.protocol import encoding
from smartlink.server.apps.policies import PolicyTable
from smartlink.server.cluster.brokers.base import Publication
from smartlink.server.core.hub import Connection, Hub
from smartlink.server.runtime.eager import yield_now_and_then
from smartlink.server.runtime.metrics import Metrics

if TYPE_CHECKING:
    from smartlink.server.core.fanout import Subscribers

__all__ = ["MAX_NAMES", "MAX_WAITING_BYTES", "Conflated", "Conflation", "Waiting", "last_of_each_name"]

MAX_NAMES: Final = 500
"""Names of events per channel that may wait, and names whose last sending is remembered."""
MAX_WAITING_BYTES: Final = 262_144
"""Bytes that may wait on a channel."""
MAX_LATE: Final = 10_000
"""Newcomers of a channel times the events that waited when each came. Beyond a bound what waits goes out at once."""
_RESOLUTION_S: Final = 0.001


class Clock(Protocol):
    """An event loop's clock and timers."""

    def time(self) -> float: ...

    def call_at(self, when: float, callback: Callable[[], object]) -> asyncio.TimerHandle: ...


@dataclass(slots=True)
class Waiting:
    """The last event of a name, not sent yet."""

    publication: Publication
    instead: dict[Connection, bytes]
    """Connections that it is not for, each with the payload that it gets in its place; empty for nothing."""
    position: int
    """Of the last event with a position that this one stands for, or 0."""
    is_live: bool
    """Whether all events that it stands for are live."""
    size: int
    """Bytes of the payloads."""


Send = Callable[["Subscribers", Waiting], None]


class Conflated:
    """The events of one channel on their way to the subscribers of this process."""

    __slots__ = ("_due_at", "_late", "_owner", "_sent_at", "_size", "_subscribers", "_timer", "_waiting", "period_s")

    def __init__(self, owner: Conflation, subscribers: Subscribers, period_s: float) -> None:
        self._owner = owner
        self._subscribers = subscribers
        self.period_s = period_s
        self._sent_at: dict[bytes, float] = {}
        """When an event of each name was last sent, oldest first."""
        self._waiting: dict[bytes, Waiting] = {}
        """By name, in the order in which they were published."""
        self._size = self._late = 0
        self._due_at = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def publish(self, publication: Publication, left_out: Collection[Connection]) -> None:
        """Send an event to all subscribers but `left_out`, now or when its time comes."""
        name, frame = encoding.name_of(publication.frame), publication.frame
        now = self._owner.clock.time()
        before = self._waiting.pop(name, None)
        if before is None:
            instead = dict.fromkeys(left_out, b"")
            waiting = Waiting(publication, instead, publication.position, publication.is_live, len(frame))
            due_at = self._sent_at.get(name, -math.inf) + self.period_s
            if due_at <= now and not self._waiting:
                self._send(name, waiting, now)
                return
            self._due_at = max(self._due_at, due_at)
        else:
            # Who does not get this one still gets the last one that was for them.
            instead = {each: before.instead.get(each, before.publication.frame) for each in left_out}
            size = len(frame) + sum(map(len, instead.values()))
            position = max(before.position, publication.position)
            waiting = Waiting(publication, instead, position, before.is_live and publication.is_live, size)
            self._size -= before.size
            self._owner.metrics.conflated += 1
        self._waiting[name] = waiting
        self._size += waiting.size
        if self._size > MAX_WAITING_BYTES or len(self._waiting) > MAX_NAMES:
            self.flush()
        elif self._timer is None:
            self._timer = self._owner.clock.call_at(self._due_at, self._on_time)
            self._owner.waiting.add(self)

    def joined(self, connection: Connection) -> None:
        """Note a new subscriber: what waits was published before it came, or has been sent to it."""
        for waiting in self._waiting.values():
            waiting.instead[connection] = b""
        self._late += len(self._waiting)
        if self._late > MAX_LATE:
            self.flush()

    def flush(self) -> None:
        """Send now what waits."""
        self.stop()
        waiting, self._waiting = self._waiting, {}
        self._size = self._late = 0
        self._due_at = 0.0
        now = self._owner.clock.time()
        for name, each in waiting.items():
            self._send(name, each, now)

    def stop(self) -> None:
        """Cancel the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._owner.waiting.discard(self)

    def _on_time(self) -> None:
        clock = self._owner.clock
        if self._due_at - clock.time() > _RESOLUTION_S:
            self._timer = clock.call_at(self._due_at, self._on_time)
        else:
            self.flush()

    def _send(self, name: bytes, waiting: Waiting, now: float) -> None:
        sent_at = self._sent_at
        sent_at.pop(name, None)
        while sent_at:
            oldest = next(iter(sent_at))
            if sent_at[oldest] + self.period_s > now and len(sent_at) < MAX_NAMES:
                break
            del sent_at[oldest]
        sent_at[name] = now
        self._owner.send(self._subscribers, waiting)


class Conflation:
    """The conflated channels of this process. `send` sends an event to its subscribers at once."""

    def __init__(
        self, hub: Hub, policies: PolicyTable, metrics: Metrics, send: Send, clock: Clock | None = None
    ) -> None:
        """`clock` is the running loop by default."""
        self._clock = clock
        self._hub = hub
        self._policies = policies
        self._send_now = send
        self.metrics = metrics
        self.waiting: set[Conflated] = set()
        """Channels with a timer."""

    @property
    def clock(self) -> Clock:
        """Where timers are made."""
        return self._clock or asyncio.get_running_loop()

    def joined(self, connection: Connection, channel: str) -> None:
        """Note that a connection is now on a channel; nothing may be delivered in between."""
        app_id = connection.app.id
        subscribers = self._hub.channel(app_id, channel)
        if subscribers is None:
            return
        if subscribers.conflated is None and (period_ms := self._policies.of(app_id, channel).conflate_ms):
            subscribers.conflated = Conflated(self, subscribers, period_ms / 1_000)
        if subscribers.conflated is not None:
            subscribers.conflated.joined(connection)

    async def apply(self, app_id: str) -> None:
        """Apply the app's policies, which have changed, to its channels here."""
        for number, channel in enumerate(tuple(self._hub.tenant(app_id).channels), 1):
            subscribers = self._hub.channel(app_id, channel)
            if subscribers is not None:
                self._apply_to(subscribers, self._policies.of(app_id, channel).conflate_ms)
            await yield_now_and_then(number)

    def _apply_to(self, subscribers: Subscribers, period_ms: int | None) -> None:
        conflated = subscribers.conflated
        if period_ms is None:
            if conflated is not None:
                subscribers.conflated = None
                conflated.flush()
        elif conflated is None:
            subscribers.conflated = Conflated(self, subscribers, period_ms / 1_000)
        elif conflated.period_s != period_ms / 1_000:
            conflated.period_s = period_ms / 1_000
            conflated.flush()

    def send(self, subscribers: Subscribers, waiting: Waiting) -> None:
        """Send an event to those of its channel's subscribers that are still there."""
        publication = waiting.publication
        if self._hub.channel(publication.app_id, publication.channel) is subscribers:
            waiting.instead = {
                each: frame
                for each, frame in waiting.instead.items()
                if each.is_open and self._hub.receives(each, publication.channel)
            }
            self._send_now(subscribers, waiting)

    def stop(self) -> None:
        """Forget what waits."""
        for conflated in tuple(self.waiting):
            conflated.stop()


def last_of_each_name(publications: Collection[Publication]) -> list[Publication]:
    """Return the last event of each name, in order."""
    found: dict[bytes, Publication] = {}
    for publication in publications:
        name = encoding.name_of(publication.frame)
        found.pop(name, None)
        found[name] = publication
    return list(found.values())
