"""The calls a relay makes to the service, several at once, and what becomes of the events that travel in them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from smartlink.broadcasting.drivers.base import MAX_BATCH
from smartlink.broadcasting.errors import BroadcastFailed, BroadcastRefused, BroadcastUnavailable
from smartlink.broadcasting.outbox.database import RelayDatabase
from smartlink.broadcasting.outbox.lanes import Call, Lanes
from smartlink.broadcasting.outbox.leases import PartitionLeases
from smartlink.broadcasting.outbox.queue import PendingEvent, PendingQueue
from smartlink.broadcasting.outbox.service import Service, Services

__all__ = ["Calls"]

_log = logging.getLogger("smartlink.broadcasting.outbox")


class Calls:
    """Takes what is ready from `lanes`, as long as `shares` hold it.

    At most `concurrency` calls of each connection are under way, and as many again for events that travel alone. `ring`
    is called when one has ended, `read_again` when there may be more to read.
    """

    def __init__(
        self,
        services: Services,
        queue: PendingQueue,
        database: RelayDatabase,
        lanes: Lanes,
        shares: PartitionLeases,
        *,
        concurrency: int,
        max_strikes: int,
        ring: Callable[[], None],
        read_again: Callable[[], None],
        sent: int = 0,
        failed: int = 0,
    ) -> None:
        self.sent = sent
        self.failed = failed
        self.jobs_left: int | None = None
        """How many events may still be sent or set aside; None: as many as there are."""
        self.under_way: dict[asyncio.Task[None], Call] = {}
        self.unmarked: list[PendingEvent] = []
        """Sent, and not yet written down as sent."""
        self._services = services
        self._queue = queue
        self._database = database
        self._lanes = lanes
        self._shares = shares
        self._concurrency = concurrency
        self._max_strikes = max_strikes
        self._ring = ring
        self._read_again = read_again
        self._marking = asyncio.Lock()

    @property
    def has_done_its_jobs(self) -> bool:
        """Whether no more events may be sent."""
        return self.jobs_left is not None and self.jobs_left <= 0

    def start(self) -> None:
        """Make what calls can be made now."""
        if not self._shares.is_valid():
            return
        while (at_most := self._room()) > 0 and (
            call := self._lanes.take(self._shares.queues, self._may_call, at_most)
            or self._lanes.take_suspect(self._may_call_alone)
        ):
            task = asyncio.create_task(self._carry_out(call))
            self.under_way[task] = call
            task.add_done_callback(self._end)

    def cancel(self) -> None:
        """Cut off what is under way; its events wait as before."""
        for task in self.under_way:
            task.cancel()

    async def mark(self) -> None:
        """Write down what was sent, after all that is being written down. Raises what the database raises."""
        async with self._marking:
            sent, self.unmarked = self.unmarked, []
            if not sent:
                return
            try:
                await self._queue.mark_sent([event.id for event in sent])
            except BaseException:
                self.unmarked += sent
                raise
            self._written(sent)

    def _written(self, events: Sequence[PendingEvent]) -> None:
        if self._lanes.marked(events):
            self._read_again()

    def _room(self) -> int:
        """How many events the next call may carry."""
        if self.jobs_left is None:
            return MAX_BATCH
        return min(MAX_BATCH, self.jobs_left - sum(len(call.events) for call in self.under_way.values()))

    def _count(self, connection: str | None, *, alone: bool) -> int:
        calls = self.under_way.values()
        return sum(call.is_alone is alone for call in calls if call.connection == connection)

    def _may_call(self, connection: str | None) -> bool:
        service, others = self._services.of(connection), self._count(connection, alone=False)
        if service.seems_away:
            return not others and service.may_be_tried()
        return others < self._concurrency

    def _may_call_alone(self, connection: str | None) -> bool:
        service, alone = self._services.of(connection), self._count(connection, alone=True)
        if service.seems_away:
            # It may be away. If nothing else is there to find out with, this is.
            is_only_one = not alone and not self._count(connection, alone=False)
            is_only_one = is_only_one and not self._lanes.has_ready(self._shares.queues, connection)
            return is_only_one and service.may_be_tried()
        return alone < self._concurrency

    def _end(self, task: asyncio.Task[None]) -> None:
        del self.under_way[task]
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("outbox: a call failed because of a bug in the outbox", exc_info=error)
        self._ring()

    async def _carry_out(self, call: Call) -> None:
        """Make one call and see to what becomes of its events."""
        service, started_at = self._services.of(call.connection), time.monotonic()
        try:
            await service.send([event.envelope() for event in call.events])
        except BroadcastRefused as refusal:
            service.note_reached()
            await self._sort_out(service, call.events, str(refusal))
        except BroadcastFailed as failure:
            await self._see_to_failure(service, call, failure, started_at)
        except asyncio.CancelledError:
            self._put_back(call.events)
            raise
        else:
            self._note_sent(service, call.events)

    def _note_sent(self, service: Service, events: Sequence[PendingEvent]) -> None:
        self.sent += len(events)
        service.note_reached()
        service.note_taken()
        if self.jobs_left is not None:
            self.jobs_left -= len(events)
        self._lanes.finish(events)
        self.unmarked.extend(events)

    def _put_back(self, events: Sequence[PendingEvent]) -> None:
        if self._lanes.put_back(events):
            self._read_again()

    async def _sort_out(self, service: Service, events: Sequence[PendingEvent], refusal: str) -> None:
        """The service refuses these: set the one aside, or find out which of them it is."""
        if len(events) == 1:
            await self._set_aside(events[0], refusal)
            return
        for place, event in enumerate(events):
            started_at = time.monotonic()
            try:
                await service.send([event.envelope()])
            except BroadcastRefused as alone:
                try:
                    await self._set_aside(event, str(alone))
                except asyncio.CancelledError:
                    self._put_back(events[place + 1 :])
                    raise
            except BroadcastFailed as failure:
                alone_again = Call([event], is_alone=True)
                await self._see_to_failure(service, alone_again, failure, started_at, events[place + 1 :])
                return
            except asyncio.CancelledError:
                self._put_back(events[place:])
                raise
            else:
                self._note_sent(service, [event])

    async def _see_to_failure(
        self,
        service: Service,
        call: Call,
        failure: BroadcastFailed,
        started_at: float,
        behind: Sequence[PendingEvent] = (),
    ) -> None:
        """No verdict: leave it for a while. `behind` are events of the same call that were not tried."""
        is_suspicious = isinstance(failure, BroadcastUnavailable) and failure.answered
        if not (is_suspicious and service.has_taken_since(started_at)):
            # Others were not taken meanwhile: the service itself may be away.
            service.note_away()
        if not call.is_alone:
            service.report(failure)
        if not is_suspicious:
            # It was not even reached: nothing can be said about the events, and nothing need be written.
            self._put_back([*call.events, *behind])
            return
        if behind:
            self._put_back(behind)
        if call.is_alone and await self._others_are_taken(service, call, started_at):
            [event] = call.events
            struck = event.struck()
            if struck.strikes > self._max_strikes:
                await self._set_aside(struck, f"tried {event.attempts + 1} times: {failure}")
            else:
                await self._hold(call.events, struck.strikes, str(failure))
            return
        await self._hold(call.events, max(1, *(event.strikes for event in call.events)), str(failure))

    async def _others_are_taken(self, service: Service, call: Call, since: float) -> bool:
        """Whether the service took another event meanwhile, or takes one now."""
        try:
            return await service.takes_others(since)
        except asyncio.CancelledError:
            self._put_back(call.events)
            raise

    async def _set_aside(self, event: PendingEvent, reason: str) -> None:
        _log.error("outbox: event %d (%s on %s) set aside: %s", event.id, event.name, event.channel, reason)
        self.failed += 1
        if self.jobs_left is not None:
            self.jobs_left -= 1
        self._lanes.finish([event])
        await self._surely(lambda: self._queue.mark_failed(event, reason), [event])

    async def _hold(self, events: Sequence[PendingEvent], strikes: int, error: str) -> None:
        self._lanes.finish(events, let_go={event.id for event in events})

        async def hold() -> None:
            delay_s = await self._queue.hold(events, strikes, error)
            asyncio.get_running_loop().call_later(delay_s + 0.001, self._read_again)

        await self._surely(hold, events)

    async def _surely(self, write: Callable[[], Coroutine[Any, Any, None]], events: Sequence[PendingEvent]) -> None:
        """Write what became of `events`, however long the database takes; until then their channels wait.

        Cancelled, they wait as before; a write that was under way may still change those that nobody else has seen to.
        """
        try:
            await self._database.surely("mark", write)
        finally:
            self._written(events)
