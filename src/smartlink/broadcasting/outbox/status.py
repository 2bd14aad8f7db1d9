"""The state of the outbox: waiting and failed events, lag, and workers."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, literal_column, select
from sqlalchemy.ext.asyncio import AsyncEngine

from smartlink.broadcasting.outbox.leases import LEASE_S, database_clock
from smartlink.broadcasting.outbox.tables import FAILED, PENDING, OutboxTables, in_utc

__all__ = ["OutboxStatus", "QueueStatus", "WorkerStatus", "read_status"]

_ALIVE_WITHIN_S = LEASE_S
_ALL_QUEUES = "*"


@dataclass(frozen=True, slots=True)
class QueueStatus:
    """A queue: `lag_s` is the age of its oldest waiting event, `has_worker` whether a live worker handles it."""

    name: str
    waiting: int
    lag_s: float
    has_worker: bool


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """A worker: `seen_s` is the time since its last heartbeat; `sent` and `failed` count events since its start."""

    id: str
    host: str
    pid: int
    queues: tuple[str, ...]
    up_s: float
    seen_s: float
    is_alive: bool
    sent: int
    failed: int


@dataclass(frozen=True, slots=True)
class OutboxStatus:
    """The whole outbox. `lag_s` is the age of the oldest waiting event of all queues, in seconds."""

    queues: tuple[QueueStatus, ...]
    workers: tuple[WorkerStatus, ...]
    waiting: int
    failed: int
    lag_s: float
    last_error: str | None

    @property
    def has_worker(self) -> bool:
        """Whether any worker is alive."""
        return any(worker.is_alive for worker in self.workers)


async def read_status(engine: AsyncEngine, tables: OutboxTables) -> OutboxStatus:
    """Read the status from the database. Raises what the database raises."""
    events, workers = tables.recorded_events, tables.outbox_workers
    is_pending = events.c.state == literal_column(f"'{PENDING}'")
    clock = database_clock(engine)
    async with engine.connect() as connection:
        now = float(await connection.scalar(select(clock)) or 0)
        waiting = (
            await connection.execute(
                select(events.c.queue, func.count(), in_utc(func.min(events.c.created_at)))
                .where(is_pending)
                .group_by(events.c.queue)
                .order_by(events.c.queue)
            )
        ).all()
        failed = await connection.scalar(
            select(func.count()).select_from(events).where(events.c.state == literal_column(f"'{FAILED}'"))
        )
        last_error = await connection.scalar(
            select(events.c.error).where(is_pending, events.c.error.is_not(None)).order_by(events.c.id).limit(1)
        )
        rows = (await connection.execute(select(workers).order_by(workers.c.started_at))).all()
    known = tuple(_worker(row, now) for row in rows)
    served = {queue for worker in known if worker.is_alive for queue in worker.queues}
    queues = tuple(
        QueueStatus(name, count, _age(oldest, now), name in served or _ALL_QUEUES in served)
        for name, count, oldest in waiting
    )
    return OutboxStatus(
        queues,
        known,
        sum(queue.waiting for queue in queues),
        failed or 0,
        max((queue.lag_s for queue in queues), default=0.0),
        last_error,
    )


def _worker(row: Any, now: float) -> WorkerStatus:
    seen_s = max(0.0, now - row.seen_at)
    return WorkerStatus(
        id=row.id,
        host=row.host,
        pid=row.pid,
        queues=tuple(row.queues.split(",")),
        up_s=round(max(0.0, now - row.started_at), 1),
        seen_s=round(seen_s, 1),
        is_alive=seen_s <= _ALIVE_WITHIN_S,
        sent=row.sent,
        failed=row.failed,
    )


def _age(oldest: dt.datetime, now: float) -> float:
    return round(max(0.0, now - oldest.timestamp()), 3)
