"""The outbox's back: sends what was recorded, each channel in order, at least once, for as long as it takes.

    waiting ──taken──▶ sent
       │ ▲
       │ ├─ the service is away: nothing is counted, tried again for ever
       │ └─ no verdict (5xx, silence): held, with its channel, and alone from then on; a strike where others are taken
       └─── refused, or too many strikes: failed, its channel goes on

Several relays share the parts of the queues among themselves (`shares`); a channel belongs to one part, so one relay
at a time sends it. Channels are independent: what is held for one delays no other.
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
from smartlink.broadcasting.outbox.wakeup import Wakeup, WakeupListener

__all__ = ["MAX_STRIKES", "Relay", "Until"]

MAX_STRIKES = 5
"""How often an event may fail, alone, where others are taken, before it is set aside."""

_ROOM = 500
"""How many events of one queue are in memory at most."""
_BEATS_PER_LEASE = 6
_LOOK_PAST_EVERY_S = 2.0
"""How often to look for events of other connections behind those of one that is away."""
_TRIES_FOR_A_SHARE = 5
_GIVE_UP_S = 2.0
"""How long the last words to the database of a relay that stops may take."""

_log = logging.getLogger("smartlink.broadcasting.outbox")


@dataclass(frozen=True, slots=True)
class Until:
    """When a relay ends by itself: after so many events, so many seconds, or once nothing waits on its queues."""

    max_jobs: int | None = None
    max_time_s: float | None = None
    is_empty: bool = False


class Relay:
    """Sends recorded events through `driver`.

    `wakeup` is the bell of an outbox in this process, `listeners` hear those elsewhere; what nobody rings for is
    found every `sweep_s`. `send_timeout_s` bounds one call whatever the driver does. `concurrency` calls of each
    connection are under way at once, and as many again for events that travel alone. `queues` are taken in their
    order; None takes all queues as they come. `lease_s` is how long a relay that died keeps its share from the others.
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
        max_strikes: int = MAX_STRIKES,
    ) -> None:
        if concurrency < 1:
            raise ValueError(f"concurrency is {concurrency}; at least one call must be possible")
        self._engine = engine
        self._tables = tables
        self._wakeup = wakeup or Wakeup()
        self._listeners = listeners
        self._sweep_s = sweep_s
        self._send_timeout_s = send_timeout_s
        self._queues = queues
        named = None if queues is None else [check_queue(each) for each in queues]
        self._shares = PartitionLeases(engine, tables, named, lease_s)
        self._services = Services(driver, send_timeout_s)
        self._queue = PendingQueue(engine, tables, driver.name)
        self._database = RelayDatabase(engine)
        self._bell = asyncio.Event()
        self._concurrency = concurrency
        self._max_strikes = max_strikes
        self._begin_anew()
        self._fetching: asyncio.Task[None] | None = None
        self._marking: asyncio.Task[None] | None = None
        self._beating: asyncio.Task[None] | None = None
        self._must_fetch = True
        self._may_fetch_at = 0.0
        self._swept_at = 0.0
        self._has_more: set[tuple[str, str | None]] = set()
        """Queues and connections of which there is more to read than there was room for."""
        self._look_past_at = 0.0
        self._beat_at = 0.0

    @property
    def sent(self) -> int:
        """How many events were taken by the service."""
        return self._calls.sent

    @property
    def failed(self) -> int:
        """How many events were set aside."""
        return self._calls.failed

    @property
    def worker_id(self) -> str:
        """What this relay is called among the workers."""
        return self._shares.worker_id

    async def run(self, stop: asyncio.Event, until: Until | None = None) -> None:
        """Relay until `stop` is set, or `until` it is time, whatever the service and the database do; then finish
        what is under way and give the share back, in bounded time."""
        until = until or Until()
        self._calls.jobs_left = until.max_jobs
        ends_at = float("inf") if until.max_time_s is None else time.monotonic() + until.max_time_s
        stopping = asyncio.ensure_future(stop.wait())
        stopping.add_done_callback(lambda _: self._bell.set())
        queues = "all queues" if self._queues is None else ", ".join(self._queues)
        _log.info("outbox: worker %s started, for %s", self.worker_id, queues)
        listening = [asyncio.create_task(each.listen(self._ring)) for each in self._listeners]
        try:
            with ExitStack() as stack:
                stack.enter_context(self._wakeup.heard_by(self._ring))
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
        """Send what waits now and is ours to send; how many were sent. Keeps the share.

        Raises what the database raises, and TimeoutError where it answers too slowly to hold a share. Ends at the
        first sign that a service is away.
        """
        before = self.sent
        for service in self._services:
            service.begin_anew()
        try:
            await self._database.do(self._shares.beat(self.sent, self.failed))
            while True:
                await self._keep_share()
                await self._database.do(self._fetch())
                self._calls.start()
                if not self._calls.under_way and self._shares.is_valid():
                    break
                while self._calls.under_way:
                    await asyncio.wait(self._calls.under_way, return_when=asyncio.FIRST_COMPLETED)
                    self._calls.start()
                await self._database.do(self._calls.mark())
                if any(service.seems_away for service in self._services):
                    break
        except BaseException:
            await self._cut_off()
            raise
        return self.sent - before

    async def release(self) -> None:
        """Give the share back after `run_once`; others may begin at once. Raises what the database raises."""
        await self._database.do(self._shares.release())

    async def prune(self, older_than: Any = RETENTION) -> int:
        """Forget sent events older than that, and remember how far; how many. Waiting and failed ones stay."""
        return await prune(self._engine, self._tables, older_than)

    def _begin_anew(self, sent: int = 0, failed: int = 0) -> None:
        """Know of no event: what waits is read again. Work that is still under way ends with what it knows, and
        changes nothing here."""
        lanes = Lanes()
        self._lanes = lanes
        self._shares.on_loss = lanes.drop
        self._calls = Calls(
            self._services,
            self._queue,
            self._database,
            lanes,
            self._shares,
            concurrency=self._concurrency,
            max_strikes=self._max_strikes,
            ring=self._bell.set,
            read_again=self._ring,
            sent=sent,
            failed=failed,
        )

    # One round: plain code that starts what can be started; each task rings when it is done.

    def _ring(self) -> None:
        self._must_fetch = True
        self._bell.set()

    def _advance(self) -> None:
        now = time.monotonic()
        if not self._shares.is_valid():
            self._lose_share()
        if self._beating is None and now >= self._beat_at:
            self._beat_at = now + self._shares.lease_s / _BEATS_PER_LEASE
            self._beating = self._spawn(self._to_database("share", self._beat), "_beating")
        if self._calls.unmarked and self._marking is None:
            self._marking = self._spawn(self._to_database("mark", self._calls.mark), "_marking")
        if now - self._swept_at >= self._sweep_s or any(self._has_room(*more) for more in self._has_more):
            self._must_fetch = True
        if self._must_fetch and self._fetching is None and now >= self._may_fetch_at:
            self._must_fetch = False
            self._swept_at = now
            self._fetching = self._spawn(self._to_database("read", self._fetch), "_fetching")
        self._calls.start()

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        def done(_: asyncio.Task[None]) -> None:
            setattr(self, name, None)
            self._bell.set()

        task = asyncio.create_task(work)
        task.add_done_callback(done)
        return task

    async def _rest(self, ends_at: float) -> None:
        """Until somebody rings, or something is due."""
        now = time.monotonic()
        due = [max(self._swept_at, now) + self._sweep_s, ends_at]
        if self._beating is None:
            due.append(self._beat_at)
        if self._shares.is_valid():
            due.append(self._shares.valid_until)
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
        # A beat that is under way may not have found all queues yet.
        under_way = calls or self._fetching or self._marking or self._beating or len(self._lanes)
        return not under_way and not self._must_fetch and self._shares.is_valid()

    async def _is_empty(self) -> bool:
        try:
            return not await self._database.do(self._queue.has_waiting(self._shares.queues))
        except Exception as error:  # noqa: BLE001 - whatever a database does, the relay outlives it
            self._database.note_failure("read", error)
            return False

    # The share.

    async def _keep_share(self) -> None:
        """Hold the share for half a lease from now, at least."""
        for _ in range(_TRIES_FOR_A_SHARE):
            if self._shares.valid_until - time.monotonic() >= self._shares.lease_s / 2:
                return
            await self._database.do(self._shares.beat(self.sent, self.failed))
        if not self._shares.is_valid():
            raise TimeoutError(f"the database takes longer than {self._shares.lease_s:g} s to renew a lease")

    async def _beat(self) -> None:
        before = set(self._shares.held)
        await self._shares.beat(self.sent, self.failed)
        if self._shares.held - before:
            self._must_fetch = True
        if self._shares.surplus:
            idle = [part for part in self._shares.surplus if self._lanes.is_idle(part)]
            if idle:
                await self._shares.release(idle)

    def _lose_share(self) -> None:
        """The leases have run out, unrenewed: what is under way may be under way elsewhere as well."""
        if self._shares.held:
            _log.warning("outbox: the database did not renew this worker's share in time; others may have it")
            self._shares.lapse()
        self._calls.cancel()

    # Reading.

    async def _to_database(self, what: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Do `work`; if it fails, leave the database alone for a while."""
        pause_s = await self._database.attempt(what, work())
        if pause_s is None:
            return
        self._must_fetch = True
        self._may_fetch_at = time.monotonic() + pause_s
        if what != "share":
            await asyncio.sleep(pause_s)

    def _has_room(self, queue: str, connection: str | None) -> bool:
        return self._lanes.counts(queue).get(connection, 0) <= _ROOM // 2

    async def _fetch(self) -> None:
        """Read what waits, as far as there is room."""
        parts = grouped(part for part in self._shares.held if self._shares.has(part))
        lanes, losses = self._lanes, self._shares.losses
        for queue in self._shares.queues:
            if queue not in parts:
                continue
            counts = lanes.counts(queue)
            full = {connection for connection, count in counts.items() if count > _ROOM // 2}
            self._has_more = {more for more in self._has_more if more[0] != queue} | {(queue, each) for each in full}
            if full and not self._may_look_past(full, counts):
                continue
            room = _ROOM - max((count for connection, count in counts.items() if connection not in full), default=0)
            found = await self._queue.waiting(queue, parts[queue], lanes.passed_over(queue), room, full)
            if self._shares.losses != losses or not self._shares.is_valid():
                # Others may have sent some of it meanwhile, even where it is ours again.
                self._must_fetch = True
                return
            lanes.add(found)
            if len(found) == room:
                self._has_more.update((queue, event.connection) for event in found)
            if found:
                self._bell.set()

    def _may_look_past(self, full: Collection[str | None], known: Collection[str | None]) -> bool:
        """Whether to read what is behind the events of connections that are `full`, which is a long way: only where
        one of them is away, and but now and then where no other connection is `known` to have any."""
        if not any(self._services.of(connection).seems_away for connection in full):
            return False
        now = time.monotonic()
        if len(known) == len(full):
            if now < self._look_past_at:
                return False
            self._look_past_at = now + _LOOK_PAST_EVERY_S
        return True

    # The end.

    async def _finish(self) -> None:
        """Let calls that are under way end, write down what they brought, give the share back: each in bounded time."""
        if self._calls.under_way:
            await asyncio.wait(self._calls.under_way, timeout=self._send_timeout_s + _GIVE_UP_S)
        await self._database.wait(_GIVE_UP_S)
        await self._cut_off()
        try:
            async with asyncio.timeout(_GIVE_UP_S):
                await self._database.do(self._hand_over())
        except TimeoutError:
            _log.warning("outbox: could not hand over in %g s; its share expires by itself", _GIVE_UP_S)
            await self._database.leave(_GIVE_UP_S)
        self._begin_anew(self.sent, self.failed)

    async def _cut_off(self) -> None:
        """End what is under way, but for work at the database; its events wait as before."""
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
            await self._shares.release()
        except Exception as error:  # noqa: BLE001 - the share runs out by itself
            _log.warning("outbox: could not hand over: %s: %s", type(error).__name__, error)
