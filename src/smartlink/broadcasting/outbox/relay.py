"""The sending side of the outbox: sends recorded events at least once, each channel in order.

    waiting ──taken──▶ sent
       │ ▲
       │ ├─ the service is unavailable: nothing is counted, retried without limit
       │ └─ no verdict (5xx, timeout): held, with its channel, and sent alone from then on
       └─── refused, or too many failed attempts while others are taken: failed; its channel continues

`calls` has the transitions in detail. Several relays divide the parts of the queues among themselves (`leases`). A
channel belongs to one part, so one relay at a time sends it. Channels are independent: one that is held does not
delay others.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Coroutine, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine

from smartlink.background import ended
from smartlink.broadcasting.drivers.base import Driver
from smartlink.broadcasting.outbox.calls import Calls
from smartlink.broadcasting.outbox.database import RelayDatabase
from smartlink.broadcasting.outbox.lanes import Lanes
from smartlink.broadcasting.outbox.leases import LEASE_S, PartitionLeases, grouped
from smartlink.broadcasting.outbox.partition import check_queue
from smartlink.broadcasting.outbox.pruning import RETENTION, prune
from smartlink.broadcasting.outbox.queue import PendingQueue
from smartlink.broadcasting.outbox.service import Services
from smartlink.broadcasting.outbox.tables import OutboxTables
from smartlink.broadcasting.outbox.wakeup import SqliteListener, Wakeup, WakeupListener
from smartlink.prometheus import Histogram

__all__ = ["MAX_FAILED_ATTEMPTS", "Relay", "Until"]

MAX_FAILED_ATTEMPTS = 5
"""How many attempts of an event may fail, alone and while others are taken, before it counts as failed."""

_ROOM = 500
"""The number of events of one queue to keep in memory."""
_BEATS_PER_LEASE = 6
_IDLE_BEATS_PER_LEASE = 1.5
"""Fewer while nothing is sent: each is a write."""
_IDLE_SWEEP_S = 2.0
"""How often to sweep while all listeners work: wake-ups are then missed only if a process does not send them."""
_LOOK_PAST_EVERY_S = 2.0
"""How often to look for events of other connections behind those of an unavailable one."""
_LEASE_TRIES = 5
_GIVE_UP_S = 2.0
"""How long a stopping relay waits for the database."""

_log = logging.getLogger("smartlink.broadcasting.outbox")


@dataclass(frozen=True, slots=True)
class Until:
    """When a relay stops by itself: after a number of events or seconds, or once no event is waiting."""

    max_jobs: int | None = None
    max_time_s: float | None = None
    is_empty: bool = False


class Relay:
    """Sends recorded events through `driver`.

    `wakeup` wakes it from an outbox in this process, `listeners` from elsewhere; a sweep every `sweep_s`, or every two
    seconds while the listeners work, finds all other events. `send_timeout_s` bounds a call, even if the driver has no
    timeout. For each connection, it makes up to `concurrency` calls at once, and as many again for suspects. `queues`
    are in order of priority; None means all, with equal priority. `lease_s` is how long a crashed relay's leases keep
    others from its events. Raises ValueError if `concurrency` is below 1, BroadcastConfigError for an invalid queue
    name.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        tables: OutboxTables,
        driver: Driver,
        *,
        wakeup: Wakeup | None = None,
        listeners: Sequence[WakeupListener] = (),
        queues: Sequence[str] | None = None,
        concurrency: int = 4,
        sweep_s: float = 0.25,
        send_timeout_s: float = 5.0,
        lease_s: float = LEASE_S,
        max_failed_attempts: int = MAX_FAILED_ATTEMPTS,
    ) -> None:
        if concurrency < 1:
            raise ValueError(f"concurrency must be at least 1, not {concurrency}")
        self._engine = engine
        self._tables = tables
        self._wakeup = wakeup or Wakeup()
        self._listeners = listeners
        self._sweep_s = sweep_s
        self._send_timeout_s = send_timeout_s
        self._queues = queues
        named = None if queues is None else [check_queue(each) for each in queues]
        self._leases = PartitionLeases(engine, tables, named, lease_s)
        self._services = Services(driver, send_timeout_s)
        self._queue = PendingQueue(engine, tables, driver.name)
        self._database = RelayDatabase(engine)
        self._bell = asyncio.Event()
        self._lag = Histogram(Histogram.SLOW)
        self._concurrency = concurrency
        self._max_failed_attempts = max_failed_attempts
        self._reset()
        self._fetching: asyncio.Task[None] | None = None
        self._marking: asyncio.Task[None] | None = None
        self._beating: asyncio.Task[None] | None = None
        self._must_fetch = True
        self._may_fetch_at = 0.0
        self._swept_at = 0.0
        self._has_more: set[tuple[str, str | None]] = set()
        """Queues and connections with more to read than there was room for."""
        self._look_past_at = 0.0
        self._beat_at = 0.0

    @property
    def sent(self) -> int:
        """The number of events sent."""
        return self._calls.sent

    @property
    def failed(self) -> int:
        """The number of events that failed."""
        return self._calls.failed

    @property
    def lag(self) -> Histogram:
        """How long sent events waited, from their recording until the service took them, in seconds."""
        return self._lag

    @property
    def worker_id(self) -> str:
        """The id of this relay among the workers."""
        return self._leases.worker_id

    async def run(self, stop: asyncio.Event, until: Until | None = None) -> None:
        """Send events until `stop` is set or a limit in `until` is reached.

        Retries all failures of the service and the database. Before it returns, it finishes calls under way and
        releases its leases, in bounded time.
        """
        until = until or Until()
        self._calls.jobs_left = until.max_jobs
        ends_at = float("inf") if until.max_time_s is None else time.monotonic() + until.max_time_s
        stopping = asyncio.ensure_future(stop.wait())
        stopping.add_done_callback(lambda _: self._bell.set())
        queues = "all queues" if self._queues is None else ", ".join(self._queues)
        _log.info("outbox: worker %s started, for %s", self.worker_id, queues)
        listening = [
            asyncio.create_task(each.listen(self._look if isinstance(each, SqliteListener) else self._ring))
            for each in self._listeners
        ]
        try:
            with ExitStack() as stack:
                stack.enter_context(self._wakeup.calling(self._ring))
                while not stop.is_set() and time.monotonic() < ends_at and not self._calls.has_done_its_jobs:
                    self._bell.clear()
                    self._advance()
                    if until.is_empty and self._is_at_rest() and await self._is_empty():
                        break
                    await self._rest(ends_at)
        finally:
            await ended(stopping, *listening)
            await self._finish()

    async def run_once(self) -> int:
        """Send the waiting events of the parts we can lease. Returns the number sent. Keeps the leases.

        Stops at the first sign that a service is unavailable. Raises what the database raises, and TimeoutError if it
        is too slow to hold a lease.
        """
        before = self.sent
        for service in self._services:
            service.reset()
        try:
            await self._database.do(self._leases.beat(self.sent, self.failed))
            while True:
                await self._keep_leases()
                await self._database.do(self._fetch())
                self._calls.start()
                if not self._calls.under_way and self._leases.is_valid():
                    break
                while self._calls.under_way:
                    await asyncio.wait(self._calls.under_way, return_when=asyncio.FIRST_COMPLETED)
                    self._calls.start()
                await self._database.do(self._calls.mark())
                if any(service.is_unavailable for service in self._services):
                    break
        except BaseException:
            await self._cut_off()
            raise
        return self.sent - before

    async def release(self) -> None:
        """Release the leases after `run_once`, so that others can start at once. Raises what the database raises."""
        await self._database.do(self._leases.release())

    async def prune(self, older_than: Any = RETENTION) -> int:
        """Delete sent events older than that, a timedelta, and note how far. Returns the number deleted."""
        return await prune(self._engine, self._tables, older_than)

    def _reset(self, sent: int = 0, failed: int = 0) -> None:
        """Start without events in memory, so that waiting ones are read again. Work under way has no effect on it."""
        lanes = Lanes()
        self._lanes = lanes
        self._leases.on_loss = lanes.drop
        self._calls = Calls(
            self._services,
            self._queue,
            self._database,
            lanes,
            self._leases,
            concurrency=self._concurrency,
            max_failed_attempts=self._max_failed_attempts,
            lag=self._lag,
            ring=self._bell.set,
            read_again=self._ring,
            sent=sent,
            failed=failed,
        )

    # One round: synchronous code that starts all tasks that can be started; each rings when it is done.

    def _ring(self) -> None:
        # A beat finds queues that are new.
        self._beat_at = min(self._beat_at, time.monotonic() + self._leases.lease_s / _BEATS_PER_LEASE)
        self._look()

    def _look(self) -> None:
        self._must_fetch = True
        self._bell.set()

    def _advance(self) -> None:
        now = time.monotonic()
        if not self._leases.is_valid():
            self._lose_leases()
        if self._beating is None and now >= self._beat_at:
            self._beat_at = now + self._leases.lease_s / _BEATS_PER_LEASE
            self._beating = self._spawn(self._to_database("lease", self._beat), "_beating")
        if self._calls.unmarked and self._marking is None:
            self._marking = self._spawn(self._to_database("mark", self._calls.mark), "_marking")
        if now - self._swept_at >= self._sweep_every_s() or any(self._has_room(*more) for more in self._has_more):
            self._must_fetch = True
        if self._must_fetch and self._fetching is None and now >= self._may_fetch_at:
            self._must_fetch = False
            self._swept_at = now
            self._fetching = self._spawn(self._to_database("read", self._fetch), "_fetching")
        self._calls.start()

    def _sweep_every_s(self) -> float:
        is_woken = bool(self._listeners) and all(getattr(each, "is_listening", False) for each in self._listeners)
        return max(self._sweep_s, _IDLE_SWEEP_S) if is_woken else self._sweep_s

    def _rest_of_beats(self) -> None:
        """Put the next beat off while nothing is sent, but not beyond the end of another worker's lease."""
        is_busy = self._calls.under_way or self._calls.unmarked or len(self._lanes)
        if not is_busy and self._leases.is_valid() and self._leases.held and not self._leases.surplus:
            idle_at = time.monotonic() + self._leases.lease_s / _IDLE_BEATS_PER_LEASE
            self._beat_at = max(self._beat_at, min(idle_at, self._leases.look_again_at))

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        def done(_: asyncio.Task[None]) -> None:
            setattr(self, name, None)
            self._bell.set()

        task = asyncio.create_task(work)
        task.add_done_callback(done)
        return task

    async def _rest(self, ends_at: float) -> None:
        """Wait until someone rings or something is due."""
        now = time.monotonic()
        due = [max(self._swept_at, now) + self._sweep_every_s(), ends_at]
        if self._beating is None:
            due.append(self._beat_at)
        if self._leases.is_valid():
            due.append(self._leases.valid_until)
        due += [service.try_at for service in self._services if not service.may_be_tried()]
        if self._must_fetch and now < self._may_fetch_at:
            due.append(self._may_fetch_at)
        if not self._bell.is_set():
            timer = asyncio.get_running_loop().call_later(max(0.0, min(due) - now), self._bell.set)
            await self._bell.wait()
            timer.cancel()
        else:
            await asyncio.sleep(0)

    def _is_at_rest(self) -> bool:
        calls = self._calls.under_way or self._calls.unmarked
        # A running beat may not have found all queues yet.
        under_way = calls or self._fetching or self._marking or self._beating or len(self._lanes)
        return not under_way and not self._must_fetch and self._leases.is_valid()

    async def _is_empty(self) -> bool:
        try:
            return not await self._database.do(self._queue.has_waiting(self._leases.queues))
        except Exception as error:  # noqa: BLE001 - the relay survives all errors of the database
            self._database.note_failure("read", error)
            return False

    # The leases.

    async def _keep_leases(self) -> None:
        """Make sure that the leases last for at least half their time. Raises TimeoutError."""
        for _ in range(_LEASE_TRIES):
            if self._leases.valid_until - time.monotonic() >= self._leases.lease_s / 2:
                return
            await self._database.do(self._leases.beat(self.sent, self.failed))
        if not self._leases.is_valid():
            raise TimeoutError(f"the database takes longer than {self._leases.lease_s:g} s to renew a lease")

    async def _beat(self) -> None:
        before, began_at = set(self._leases.held), time.monotonic()
        files = [each for each in self._listeners if isinstance(each, SqliteListener)]
        with ExitStack() as stack:
            for listener in files:
                stack.enter_context(listener.held())
            await self._leases.beat(self.sent, self.failed)
            if self._leases.is_empty:
                # Our own write is no reason to read. What another writes in this very moment waits for the next beat.
                for listener in files:
                    listener.pass_over()
        if self._leases.held - before or (files and not self._leases.is_empty):
            self._must_fetch = True
        if self._leases.is_empty:
            # It has seen what a sweep would.
            self._swept_at = max(self._swept_at, began_at)
        self._rest_of_beats()
        if self._leases.surplus:
            idle = [part for part in self._leases.surplus if self._lanes.is_idle(part)]
            if idle:
                await self._leases.release(idle)

    def _lose_leases(self) -> None:
        """Drop expired leases and cancel calls: another worker may be sending the same events."""
        if self._leases.held:
            _log.warning("outbox: this worker's leases expired before the database renewed them")
            self._leases.lapse()
        self._calls.cancel()

    # Reading.

    async def _to_database(self, what: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Do `work`; back off if it fails."""
        pause_s = await self._database.attempt(what, work())
        if pause_s is None:
            return
        self._must_fetch = True
        self._may_fetch_at = time.monotonic() + pause_s
        if what != "lease":
            await asyncio.sleep(pause_s)

    def _has_room(self, queue: str, connection: str | None) -> bool:
        return self._lanes.counts(queue).get(connection, 0) <= _ROOM // 2

    async def _fetch(self) -> None:
        """Read waiting events, as far as there is room."""
        parts = grouped(part for part in self._leases.held if self._leases.has(part))
        lanes, losses = self._lanes, self._leases.losses
        for queue in self._leases.queues:
            if queue not in parts:
                continue
            counts = lanes.counts(queue)
            full = {connection for connection, count in counts.items() if count > _ROOM // 2}
            self._has_more = {more for more in self._has_more if more[0] != queue} | {(queue, each) for each in full}
            if full and not self._may_read_past(full, counts):
                continue
            room = _ROOM - max((count for connection, count in counts.items() if connection not in full), default=0)
            found = await self._queue.waiting(queue, parts[queue], lanes.passed_over(queue), room, full)
            if self._leases.losses != losses or not self._leases.is_valid():
                # Others may have sent some of these meanwhile, even if the parts are ours again.
                self._must_fetch = True
                return
            lanes.add(found)
            if len(found) == room:
                self._has_more.update((queue, event.connection) for event in found)
            if found:
                self._bell.set()

    def _may_read_past(self, full: Collection[str | None], known: Collection[str | None]) -> bool:
        """Return whether to read past the events of connections that are `full`, which is slow.

        Only if one of them is unavailable, and at intervals if no other connection is `known` to have events.
        """
        if not any(self._services.of(connection).is_unavailable for connection in full):
            return False
        now = time.monotonic()
        if len(known) == len(full):
            if now < self._look_past_at:
                return False
            self._look_past_at = now + _LOOK_PAST_EVERY_S
        return True

    # Stopping.

    async def _finish(self) -> None:
        """Let calls finish, mark their events, and release the leases, each in bounded time."""
        if self._calls.under_way:
            await asyncio.wait(self._calls.under_way, timeout=self._send_timeout_s + _GIVE_UP_S)
        await self._database.wait(_GIVE_UP_S)
        await self._cut_off()
        try:
            async with asyncio.timeout(_GIVE_UP_S):
                await self._database.do(self._hand_over())
        except TimeoutError:
            _log.warning("outbox: could not release the leases within %g s; they expire by themselves", _GIVE_UP_S)
            await self._database.leave(_GIVE_UP_S)
        self._reset(self.sent, self.failed)

    async def _cut_off(self) -> None:
        """Cancel all tasks, except for work at the database; their events are ready again."""
        probes = [service.probe for service in self._services]
        running = [*self._calls.under_way, *probes, self._fetching, self._marking, self._beating]
        rest = [task for task in running if task is not None]
        for task in rest:
            task.cancel()
        if rest:
            await asyncio.wait(rest, timeout=_GIVE_UP_S)

    async def _hand_over(self) -> None:
        try:
            await self._calls.mark()
            await self._leases.release()
        except Exception as error:  # noqa: BLE001 - leases expire by themselves
            _log.warning("outbox: could not release the leases: %s: %s", type(error).__name__, error)
