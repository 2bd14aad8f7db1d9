"""The outbox's back: sends what was recorded, each channel in order, at least once, for as long as it takes.

    waiting ──sent──▶ sent
       │ ▲
       │ └─ the service is away: held, with its channel, tried again for ever
       └─── the service refuses it, also alone: failed, its channel goes on

Several relays may run; the lease lets one work. Channels are independent: what is held for one delays no other.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal

from sqlalchemy.ext.asyncio import AsyncEngine

from smartlink.broadcasting.drivers.base import Driver
from smartlink.broadcasting.errors import BroadcastFailed, BroadcastRefused, BroadcastUnavailable
from smartlink.broadcasting.outbox.lease import Lease
from smartlink.broadcasting.outbox.pruning import RETENTION, prune
from smartlink.broadcasting.outbox.queue import MAX_BACKOFF_S, PendingQueue, Waiting, batch_key
from smartlink.broadcasting.outbox.tables import OutboxTables

__all__ = ["Relay"]

_READ_AT_ONCE = 200
_ALONE_AFTER_ATTEMPTS = 3
_MARK_EVERY_S = 0.05
_PAUSE_AFTER_FAILURE_S = 0.05
_FIRST_DATABASE_PAUSE_S = 0.05
_GIVE_UP_S = 2.0
"""How long the last words to the database of a relay that stops may take."""

_log = logging.getLogger("smartlink.broadcasting.outbox")


class Relay:
    """Sends recorded events through `driver`.

    `wake` is the `wakeup` of the outbox in the same event loop; without it, and for what other processes record,
    the relay looks every `sweep_s`. `send_timeout_s` bounds one call whatever the driver does, and must be at most
    three quarters of `lease_s`: nobody sends on a lease that could run out meanwhile.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        tables: OutboxTables,
        driver: Driver,
        *,
        wake: asyncio.Event | None = None,
        sweep_s: float = 0.25,
        send_timeout_s: float = 5.0,
        lease_s: float = 8.0,
    ) -> None:
        if send_timeout_s > lease_s * 0.75:
            raise ValueError(f"send_timeout_s ({send_timeout_s}) is above three quarters of lease_s ({lease_s})")
        self._engine = engine
        self._tables = tables
        self._driver = driver
        self._wake = wake or asyncio.Event()
        self._sweep_s = sweep_s
        self._send_timeout_s = send_timeout_s
        self._lease = Lease(engine, tables, lease_s=lease_s)
        self._queue = PendingQueue(engine, tables)
        self._term = 0
        self._next_batch = 1
        self._unmarked: list[int] = []
        self._marked_at = 0.0
        self._alone: set[int] = set()
        self._is_down = False
        self._is_reported = False
        self._database_failures = 0
        self._has_more = False

    async def run(self, stop: asyncio.Event) -> None:
        """Relay until `stop` is set, whatever the service and the database do; then give the lease back."""
        stopping = asyncio.ensure_future(stop.wait())
        try:
            while not stop.is_set():
                self._wake.clear()
                pause_s = await self._cycle_until(stopping)
                if pause_s is not None:
                    await self._pause(stopping, pause_s)
        finally:
            stopping.cancel()
            await self._hand_over()

    async def run_once(self) -> int:
        """Send what waits now, at most some hundreds; how many were sent. 0 while another relay is at work.

        Raises what the database raises.
        """
        self._has_more = False
        await self._mark_sent()
        if not await self._lease.hold():
            return 0
        await self._begin_term()
        waiting = await self._queue.waiting(_READ_AT_ONCE)
        if not waiting:
            return 0
        # Counted on first: a claim that seems to fail may have been committed, and its numbers are then taken.
        first, self._next_batch = self._next_batch, self._next_batch + len(waiting)
        batches = await self._queue.claim(waiting, first)
        sent = await self._deliver_all(batches)
        await self._mark_sent()
        self._has_more = not self._is_down and len(waiting) == _READ_AT_ONCE
        return sent

    async def prune(self, older_than: dt.timedelta = RETENTION) -> int:
        """Forget sent events older than that, and remember how far; how many. Waiting and failed ones stay."""
        return await prune(self._engine, self._tables, older_than)

    async def _cycle_until(self, stopping: asyncio.Future[Literal[True]]) -> float | None:
        """A round, which a stop lets finish for as long as one call may take. Given up, its events are sent again."""
        cycle = asyncio.ensure_future(self._cycle())
        try:
            either: set[asyncio.Future[Any]] = {cycle, stopping}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not cycle.done():
                await asyncio.wait({cycle}, timeout=self._send_timeout_s)
        finally:
            if not cycle.done():
                cycle.cancel()
                await asyncio.wait({cycle}, timeout=_GIVE_UP_S)
        return cycle.result() if cycle.done() and not cycle.cancelled() else 0

    async def _cycle(self) -> float | None:
        """One round; how long to rest at least, None when there is more to do at once."""
        try:
            await self.run_once()
        except Exception as error:  # noqa: BLE001 - whatever a database does, the relay outlives it
            self._database_failures += 1
            if self._database_failures == 1:
                _log.warning("outbox: the database failed, trying again: %s: %s", type(error).__name__, error)
            return min(MAX_BACKOFF_S, _FIRST_DATABASE_PAUSE_S * 2.0 ** min(self._database_failures, 10))
        if self._database_failures:
            _log.info("outbox: the database is back after %d failures", self._database_failures)
            self._database_failures = 0
        if self._has_more:
            return None
        return _PAUSE_AFTER_FAILURE_S if self._is_down else 0

    async def _pause(self, stopping: asyncio.Future[Literal[True]], at_least_s: float) -> None:
        if at_least_s:
            await asyncio.wait({stopping}, timeout=at_least_s)
        waking = asyncio.ensure_future(self._wake.wait())
        try:
            await asyncio.wait({waking, stopping}, timeout=self._sweep_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waking.cancel()

    async def _hand_over(self) -> None:
        try:
            async with asyncio.timeout(_GIVE_UP_S):
                await self._mark_sent()
                await self._lease.release()
        except Exception as error:  # noqa: BLE001 - the lease runs out by itself
            _log.warning("outbox: could not hand over: %s: %s", type(error).__name__, error)

    async def _begin_term(self) -> None:
        if self._lease.term != self._term:
            self._next_batch = await self._queue.last_batch() + 1
            self._alone.clear()
            self._term = self._lease.term

    async def _deliver_all(self, batches: Iterable[Sequence[Waiting]]) -> int:
        """Make these calls, in order, as far as the service goes along; how many events were sent."""
        self._is_down = False
        blocked: set[str] = set()
        sent = 0
        for batch in self._apart(batches):
            sent += await self._deliver(batch, blocked)
            if self._is_down:
                break
        return sent

    def _apart(self, batches: Iterable[Sequence[Waiting]]) -> Iterator[Sequence[Waiting]]:
        """The batches, those taken apart whose repeated failure may be the fault of one of them."""
        for batch in batches:
            if self._alone.isdisjoint(event.id for event in batch):
                yield batch
            else:
                yield from ([event] for event in batch)

    async def _deliver(self, batch: Sequence[Waiting], blocked: set[str]) -> int:
        """Make one call, but for channels that are blocked; how many events were sent."""
        events = [event for event in batch if event.channel not in blocked]
        if not events:
            return 0
        if not await self._lease.hold():
            self._is_down = True
            return 0
        try:
            await self._send(events)
        except BroadcastRefused as refusal:
            return await self._sort_out(events, str(refusal), blocked)
        except BroadcastFailed as failure:
            await self._hold(events, failure)
            blocked.update(event.channel for event in events)
            return 0
        await self._note_sent([event.id for event in events])
        return len(events)

    async def _send(self, events: Sequence[Waiting]) -> None:
        """Raises BroadcastFailed only, whatever the driver does."""
        envelopes = [event.envelope() for event in events]
        try:
            async with asyncio.timeout(self._send_timeout_s):
                await self._driver.send(envelopes, idempotency_key=batch_key(events))
        except BroadcastFailed:
            raise
        except TimeoutError:
            raise BroadcastUnavailable(f"{self._driver.name} gave no answer in {self._send_timeout_s:g} s") from None
        except Exception as error:
            _log.exception("outbox: driver %s raised what it may not raise", self._driver.name)
            raise BroadcastUnavailable(f"{type(error).__name__}: {error}", answered=True) from error

    async def _sort_out(self, events: Sequence[Waiting], refusal: str, blocked: set[str]) -> int:
        """The service refuses these: set the one aside, or find out which of them it is."""
        if len(events) > 1:
            sent = 0
            for event in events:
                sent += await self._deliver([event], blocked)
                if self._is_down:
                    break
            return sent
        [event] = events
        _log.error("outbox: event %d (%s on %s) set aside: %s", event.id, event.name, event.channel, refusal)
        await self._queue.mark_failed(event, refusal)
        self._alone.discard(event.id)
        return 0

    async def _hold(self, events: Sequence[Waiting], failure: BroadcastFailed) -> None:
        answered = isinstance(failure, BroadcastUnavailable) and failure.answered
        self._is_down = not answered
        if answered:
            self._alone.update(event.id for event in events if event.attempts + 1 >= _ALONE_AFTER_ATTEMPTS)
        if not self._is_reported:
            _log.warning("outbox: keeping events until %s takes them: %s", self._driver.name, failure)
            self._is_reported = True
        await self._queue.hold(events, str(failure))

    async def _note_sent(self, ids: Sequence[int]) -> None:
        if self._is_reported:
            _log.info("outbox: %s takes events again", self._driver.name)
            self._is_reported = False
        self._alone.difference_update(ids)
        self._unmarked.extend(ids)
        if time.monotonic() - self._marked_at > _MARK_EVERY_S:
            await self._mark_sent()

    async def _mark_sent(self) -> None:
        self._marked_at = time.monotonic()
        if self._unmarked:
            await self._queue.mark_sent(self._unmarked)
            self._unmarked.clear()
