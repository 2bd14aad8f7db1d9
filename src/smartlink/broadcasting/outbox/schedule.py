"""Jobs that are due now and then, done once over all workers: who takes a job's lease does it.

A job that is under way when the schedule ends gets two seconds, and is then cut off: it has to bear that.

The lease lasts as long as the job's period and is not given back when the job is done, so nobody does it again before
it is due. A worker that stops lets the next one begin; one that dies delays its jobs by a period at most.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine

from smartlink.broadcasting.outbox.database import RelayDatabase
from smartlink.broadcasting.outbox.leases import Leases
from smartlink.broadcasting.outbox.tables import OutboxTables

__all__ = ["Schedule"]

_GIVE_UP_S = 2.0
_log = logging.getLogger("smartlink.broadcasting.outbox")

Job = Callable[[], Awaitable[object]]


class Schedule:
    """Does each job about every so many seconds, wherever it runs first; a job that fails is done again when due."""

    def __init__(self, engine: AsyncEngine, tables: OutboxTables) -> None:
        self._engine = engine
        self._tables = tables
        self._holder = f"job-{secrets.token_hex(8)}"
        self._database = RelayDatabase(engine)
        self._jobs: dict[str, tuple[float, float, Job]] = {}

    def every(self, seconds: float, name: str, job: Job, *, first_s: float = 1.0) -> None:
        """Add a job: `first_s` after the start, unless another worker has done it within its period."""
        self._jobs[name] = (seconds, first_s, job)

    async def run(self, stop: asyncio.Event) -> None:
        """Do the jobs until `stop` is set; then let others do them."""
        async with asyncio.TaskGroup() as group:
            for name, (seconds, first_s, job) in self._jobs.items():
                group.create_task(self._repeat(name, seconds, first_s, job, stop), name=name)
        await self._database.leave(_GIVE_UP_S)

    async def _repeat(self, name: str, seconds: float, first_s: float, job: Job, stop: asyncio.Event) -> None:
        lease = Leases(self._engine, self._tables.outbox_lease, self._holder, seconds)
        pause_s = first_s
        while not await _is_set_within(stop, pause_s):
            pause_s = max(0.5, seconds / 10)
            try:
                await self._within_its_time(_do(lease, name, job), stop)
            except Exception as error:  # noqa: BLE001 - whatever a job or the database does, the others go on
                _log.warning("scheduled job %s failed, next time again: %s: %s", name, type(error).__name__, error)
        try:
            async with asyncio.timeout(_GIVE_UP_S):
                await self._database.do(lease.release([f"job:{name}"]))
        except Exception as error:  # noqa: BLE001 - the lease runs out by itself
            _log.warning("scheduled job %s: could not hand over: %s", name, type(error).__name__)

    async def _within_its_time(self, work: Coroutine[Any, Any, None], stop: asyncio.Event) -> None:
        """Do `work`, which has only so long once `stop` is set. Raises what it raises, and TimeoutError."""
        doing, stopping = asyncio.create_task(self._database.do(work)), asyncio.create_task(stop.wait())
        try:
            await asyncio.wait({doing, stopping}, return_when=asyncio.FIRST_COMPLETED)
            async with asyncio.timeout(_GIVE_UP_S):
                await doing
        finally:
            doing.cancel()
            stopping.cancel()


async def _do(lease: Leases, name: str, job: Job) -> None:
    if await lease.take([f"job:{name}"]):
        await job()


async def _is_set_within(stop: asyncio.Event, seconds: float) -> bool:
    try:
        await asyncio.wait_for(stop.wait(), seconds)
    except TimeoutError:
        return False
    return True
