"""Periodic jobs that run once across all workers: the worker that takes a job's lease runs it.

When the schedule stops, a running job has two seconds to finish and is then cancelled, so jobs must tolerate that.

A lease lasts for the job's period and is not released when the job is done, so that it does not run again before it is
due. A worker that stops releases its leases; one that crashes delays its jobs by up to a period.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine

from smartlink.broadcasting.outbox.database import RelayDatabase
from smartlink.broadcasting.outbox.hints import hint
from smartlink.broadcasting.outbox.leases import Leases
from smartlink.broadcasting.outbox.tables import OutboxTables

__all__ = ["Schedule"]

_GIVE_UP_S = 2.0
_log = logging.getLogger("smartlink.broadcasting.outbox")


@dataclass(frozen=True, slots=True)
class _Job:
    name: str
    every_s: float
    first_s: float
    work: Callable[[], Awaitable[object]]
    is_needed: Callable[[], Awaitable[bool]] | None

    @property
    def lease_name(self) -> str:
        return f"job:{self.name}"


class Schedule:
    """Runs each job about once per period, on any worker. A job that fails runs again when it is next due."""

    def __init__(self, engine: AsyncEngine, tables: OutboxTables) -> None:
        self._engine = engine
        self._tables = tables
        self._holder = f"job-{secrets.token_hex(8)}"
        self._database = RelayDatabase(engine)
        self._jobs: dict[str, _Job] = {}

    def every(
        self,
        seconds: float,
        name: str,
        job: Callable[[], Awaitable[object]],
        *,
        first_s: float = 1.0,
        is_needed: Callable[[], Awaitable[bool]] | None = None,
    ) -> None:
        """Add a job to run every so many seconds, first `first_s` after the start unless another worker ran it.

        With `is_needed`, each worker asks it that often, and takes the job's lease only if there is something to do.
        """
        self._jobs[name] = _Job(name, seconds, first_s, job, is_needed)

    async def run(self, stop: asyncio.Event) -> None:
        """Run the jobs until `stop` is set, then release their leases."""
        async with asyncio.TaskGroup() as group:
            for job in self._jobs.values():
                group.create_task(self._repeat(job, stop), name=job.name)
        await self._database.leave(_GIVE_UP_S)

    async def _repeat(self, job: _Job, stop: asyncio.Event) -> None:
        lease = Leases(self._engine, self._tables.outbox_lease, self._holder, job.every_s)
        pause_s = job.first_s
        while not await _is_set_within(stop, pause_s):
            pause_s = max(0.5, job.every_s / 2)
            try:
                if await self._within_its_time(_do(lease, job), stop):
                    # The lease is ours until then: nobody can run it before.
                    pause_s = job.every_s
            except Exception as error:  # noqa: BLE001 - an error must not stop the other jobs
                said = hint(error) or error
                _log.warning("scheduled job %s failed, will run again: %s: %s", job.name, type(error).__name__, said)
        try:
            async with asyncio.timeout(_GIVE_UP_S):
                await self._database.do(lease.release([job.lease_name]))
        except Exception as error:  # noqa: BLE001 - the lease expires by itself
            _log.warning("scheduled job %s: could not release its lease: %s", job.name, type(error).__name__)

    async def _within_its_time(self, work: Coroutine[Any, Any, bool], stop: asyncio.Event) -> bool:
        """Run `work`, for at most two more seconds once `stop` is set. Raises what it raises, and TimeoutError."""
        doing, stopping = asyncio.create_task(self._database.do(work)), asyncio.create_task(stop.wait())
        try:
            await asyncio.wait({doing, stopping}, return_when=asyncio.FIRST_COMPLETED)
            async with asyncio.timeout(_GIVE_UP_S):
                return await doing
        finally:
            doing.cancel()
            stopping.cancel()


async def _do(lease: Leases, job: _Job) -> bool:
    """Run a job if it is due; return whether it need not be tried again before its period is over."""
    if job.is_needed is not None and not await job.is_needed():
        return True
    if not await lease.take([job.lease_name]):
        return False
    await job.work()
    return True


async def _is_set_within(stop: asyncio.Event, seconds: float) -> bool:
    try:
        await asyncio.wait_for(stop.wait(), seconds)
    except TimeoutError:
        return False
    return True
