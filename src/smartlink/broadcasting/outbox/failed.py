"""Dead letters: events that the service refused, for a person to look at, send again, or let go."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from sqlalchemy import CursorResult, delete, literal_column, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.sql.dml import Delete, Update

from smartlink.broadcasting.outbox.tables import FAILED, PENDING, OutboxTables

__all__ = ["FailedEvent", "FailedEvents"]


@dataclass(frozen=True, slots=True)
class FailedEvent:
    """An event set aside: `error` is what the service said, `payload` JSON text as it was recorded."""

    id: int
    channel: str
    name: str
    payload: str
    queue: str
    attempts: int
    error: str
    created_at: dt.datetime


class FailedEvents:
    """Works in the session's transaction; the caller commits, and wakes the outbox after a retry."""

    def __init__(self, tables: OutboxTables) -> None:
        self._events = tables.recorded_events
        self._has_failed = self._events.c.state == literal_column(f"'{FAILED}'")
        self._again = (
            update(self._events)
            .where(self._has_failed)
            .values(state=PENDING, attempts=0, strikes=0, available_at=None, error=None)
        )

    async def list(self, session: AsyncSession, *, limit: int = 100, before: int | None = None) -> list[FailedEvent]:
        """Failed events, newest first; `before` an id pages on."""
        columns = (self._events.c[name] for name in FailedEvent.__slots__)
        query = select(*columns).where(self._has_failed).order_by(self._events.c.id.desc()).limit(limit)
        if before is not None:
            query = query.where(self._events.c.id < before)
        return [FailedEvent(*row) for row in await session.execute(query)]

    async def retry(self, session: AsyncSession, event_id: int) -> bool:
        """Let it wait again, as new; later events of its channel have gone ahead. False when it has not failed."""
        return await self._change(session, self._again.where(self._events.c.id == event_id)) > 0

    async def retry_all(self, session: AsyncSession) -> int:
        """Let all wait again; how many."""
        return await self._change(session, self._again)

    async def forget(self, session: AsyncSession, event_id: int) -> bool:
        """Delete it for good; clients that catch up miss it. False when it has not failed."""
        gone = delete(self._events).where(self._has_failed, self._events.c.id == event_id)
        return await self._change(session, gone) > 0

    async def forget_all(self, session: AsyncSession) -> int:
        """Delete all that have failed, for good; how many."""
        return await self._change(session, delete(self._events).where(self._has_failed))

    async def _change(self, session: AsyncSession, statement: Update | Delete) -> int:
        result = await session.execute(statement)
        return result.rowcount if isinstance(result, CursorResult) else 0
