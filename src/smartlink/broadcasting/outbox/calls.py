"""Makes a relay's calls to the service, several at once, and decides what becomes of their events.

    outcome of a call                     its events                                      the service
    ------------------------------------  ----------------------------------------------  ------------------
    taken                                 sent                                            available
    refused, one event                    failed; its channel continues                   available
    refused, several events               each is sent again by itself, in this order     available
    not reached                           ready again; nothing is written                 unavailable
    no verdict (5xx, timeout):
      several events, or the first time   held, and suspect from then on: sent alone      unavailable, unless it
      a suspect, no other is taken        held; nothing is counted                        has taken others since
      a suspect, others are taken         held, one more failed attempt; failed after     the call began
                                          more than `max_failed_attempts`
    cancelled                             ready again                                     unchanged

An event is suspect once it was in a call without a verdict (`failed_attempts` is at least 1): it may be what breaks
the service. Whether "others are taken" is known from calls since, or else asked with a probe, an event on a channel
without subscribers. A held event blocks its channel until its back-off has passed. See `service` for what
"unavailable" means for further calls.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from smartlink import tracing
from smartlink.broadcasting.drivers.base import MAX_BATCH
from smartlink.broadcasting.errors import BroadcastFailed, BroadcastRefused, BroadcastUnavailable
from smartlink.broadcasting.outbox.database import RelayDatabase
from smartlink.broadcasting.outbox.lanes import Call, Lanes
from smartlink.broadcasting.outbox.leases import PartitionLeases
from smartlink.broadcasting.outbox.queue import PendingEvent, PendingQueue
from smartlink.broadcasting.outbox.service import Service, Services
from smartlink.prometheus import Histogram

__all__ = ["Calls"]

_log = logging.getLogger("smartlink.broadcasting.outbox")


class Calls:
    """Takes events that are ready from `lanes`, while `leases` hold their parts.

    Makes at most `concurrency` calls at once for each connection, and as many again for suspects. Calls `ring` when a
    call has ended, and `read_again` when there may be more to read.
    """

    def __init__(
        self,
        services: Services,
        queue: PendingQueue,
        database: RelayDatabase,
        lanes: Lanes,
        leases: PartitionLeases,
        *,
        concurrency: int,
        max_failed_attempts: int,
        lag: Histogram,
        ring: Callable[[], None],
        read_again: Callable[[], None],
        sent: int = 0,
        failed: int = 0,
    ) -> None:
        self.sent = sent
        self.failed = failed
        self.jobs_left: int | None = None
        """How many more events may be sent or fail; None: no limit."""
        self.under_way: dict[asyncio.Task[None], Call] = {}
        self.unmarked: list[PendingEvent] = []
        """Events that were sent, but not yet marked in the database."""
        self._services = services
        self._queue = queue
        self._database = database
        self._lanes = lanes
        self._leases = leases
        self._concurrency = concurrency
        self._max_failed_attempts = max_failed_attempts
        self._lag = lag
        self._ring = ring
        self._read_again = read_again
        self._marking = asyncio.Lock()

    @property
    def has_done_its_jobs(self) -> bool:
        """Whether the limit of events has been reached."""
        return self.jobs_left is not None and self.jobs_left <= 0

    def start(self) -> None:
        """Start all calls that can be made now."""
        if not self._leases.is_valid():
            return
        while (at_most := self._room()) > 0 and (
            call := self._lanes.take(self._leases.queues, self._may_call, at_most)
            or self._lanes.take_suspect(self._may_call_alone)
        ):
            task = asyncio.create_task(self._carry_out(call))
            self.under_way[task] = call
            task.add_done_callback(self._end)

    def cancel(self) -> None:
        """Cancel all calls; their events are ready again."""
        for task in self.under_way:
            task.cancel()

    async def mark(self) -> None:
        """Mark sent events in the database, one caller at a time. Raises what the database raises."""
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
        """Return how many events the next call may carry."""
        if self.jobs_left is None:
            return MAX_BATCH
        return min(MAX_BATCH, self.jobs_left - sum(len(call.events) for call in self.under_way.values()))

    def _count(self, connection: str | None, *, alone: bool) -> int:
        calls = self.under_way.values()
        return sum(call.is_alone is alone for call in calls if call.connection == connection)

    def _may_call(self, connection: str | None) -> bool:
        service, others = self._services.of(connection), self._count(connection, alone=False)
        if service.is_unavailable:
            return not others and service.may_be_tried()
        return others < self._concurrency

    def _may_call_alone(self, connection: str | None) -> bool:
        service, alone = self._services.of(connection), self._count(connection, alone=True)
        if service.is_unavailable:
            # The service may be down: try with a suspect only if there is nothing else to try with.
            is_only_one = not alone and not self._count(connection, alone=False)
            is_only_one = is_only_one and not self._lanes.has_ready(self._leases.queues, connection)
            return is_only_one and service.may_be_tried()
        return alone < self._concurrency

    def _end(self, task: asyncio.Task[None]) -> None:
        del self.under_way[task]
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("outbox: unexpected error in the relay", exc_info=error)
        self._ring()

    async def _carry_out(self, call: Call) -> None:
        """Make one call and handle its outcome."""
        service, started_at = self._services.of(call.connection), time.monotonic()
        try:
            with tracing.publishing([event.trace for event in call.events], events=len(call.events)):
                await service.send([event.envelope() for event in call.events])
        except BroadcastRefused as refusal:
            service.note_reached()
            await self._handle_refusal(service, call.events, str(refusal))
        except BroadcastFailed as failure:
            await self._handle_no_verdict(service, call, failure, started_at)
        except asyncio.CancelledError:
            self._put_back(call.events)
            raise
        else:
            self._note_sent(service, call.events)

    def _note_sent(self, service: Service, events: Sequence[PendingEvent]) -> None:
        self.sent += len(events)
        now = time.time()
        for event in events:
            # Clocks of two machines may differ.
            self._lag.observe(max(0.0, now - event.recorded_at()))
        service.note_reached()
        service.note_accepted()
        if self.jobs_left is not None:
            self.jobs_left -= len(events)
        self._lanes.finish(events)
        self.unmarked.extend(events)

    def _put_back(self, events: Sequence[PendingEvent]) -> None:
        if self._lanes.put_back(events):
            self._read_again()

    async def _handle_refusal(self, service: Service, events: Sequence[PendingEvent], refusal: str) -> None:
        """Mark a refused event as failed; of several, send each by itself to find out which are refused."""
        if len(events) == 1:
            await self._fail(events[0], refusal)
            return
        for place, event in enumerate(events):
            started_at = time.monotonic()
            try:
                with tracing.publishing([event.trace], events=1):
                    await service.send([event.envelope()])
            except BroadcastRefused as alone:
                try:
                    await self._fail(event, str(alone))
                except asyncio.CancelledError:
                    self._put_back(events[place + 1 :])
                    raise
            except BroadcastFailed as failure:
                alone_again = Call([event], is_alone=True)
                await self._handle_no_verdict(service, alone_again, failure, started_at, events[place + 1 :])
                return
            except asyncio.CancelledError:
                self._put_back(events[place:])
                raise
            else:
                self._note_sent(service, [event])

    async def _handle_no_verdict(
        self,
        service: Service,
        call: Call,
        failure: BroadcastFailed,
        started_at: float,
        behind: Sequence[PendingEvent] = (),
    ) -> None:
        """Handle a call that was not reached or got no verdict. `behind` are events of the call that were not tried."""
        is_suspicious = isinstance(failure, BroadcastUnavailable) and failure.answered
        if not (is_suspicious and service.has_accepted_since(started_at)):
            # No others were taken meanwhile: the service itself may be down.
            service.note_failure()
        if not call.is_alone:
            service.report(failure)
        if not is_suspicious:
            # The service was not reached: this says nothing about the events, so nothing is written.
            self._put_back([*call.events, *behind])
            return
        if behind:
            self._put_back(behind)
        if call.is_alone and await self._others_are_accepted(service, call, started_at):
            [event] = call.events
            counted = event.after_failed_attempt()
            if counted.failed_attempts > self._max_failed_attempts:
                await self._fail(counted, f"tried {event.attempts + 1} times: {failure}")
            else:
                await self._hold(call.events, counted.failed_attempts, str(failure))
            return
        await self._hold(call.events, max(1, *(event.failed_attempts for event in call.events)), str(failure))

    async def _others_are_accepted(self, service: Service, call: Call, since: float) -> bool:
        """Return whether the service has taken another event since, or takes one now."""
        try:
            return await service.accepts_others(since)
        except asyncio.CancelledError:
            self._put_back(call.events)
            raise

    async def _fail(self, event: PendingEvent, reason: str) -> None:
        _log.error("outbox: event %d (%s on %s) failed: %s", event.id, event.name, event.channel, reason)
        self.failed += 1
        if self.jobs_left is not None:
            self.jobs_left -= 1
        self._lanes.finish([event])
        await self._write(lambda: self._queue.mark_failed(event, reason), [event])

    async def _hold(self, events: Sequence[PendingEvent], failed_attempts: int, error: str) -> None:
        self._lanes.finish(events, let_go={event.id for event in events})

        async def hold() -> None:
            delay_s = await self._queue.hold(events, failed_attempts, error)
            asyncio.get_running_loop().call_later(delay_s + 0.001, self._read_again)

        await self._write(hold, events)

    async def _write(self, write: Callable[[], Coroutine[Any, Any, None]], events: Sequence[PendingEvent]) -> None:
        """Write the outcome of `events`, retrying until the database accepts it; their channels wait until then.

        If cancelled, they stay as they were, unless a write already under way still succeeds.
        """
        try:
            await self._database.surely("mark", write)
        finally:
            self._written(events)
