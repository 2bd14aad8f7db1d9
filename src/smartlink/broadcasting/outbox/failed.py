"""Failed events (dead letters), to be inspected, retried or deleted by a person.

Later events have overtaken a failed one, and clients ignore events with lower ids than they have seen. So a retry
records the event anew, after all others of its channel, and removes the old row, in one transaction.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from sqlalchemy import CursorResult, delete, literal_column, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.sql.dml import Delete
from sqlalchemy.sql.elements import ColumnElement

from smartlink.broadcasting.envelope import Delivery, Envelope
from smartlink.broadcasting.outbox.record import Outbox
from smartlink.broadcasting.outbox.tables import FAILED, OutboxTables, in_utc

__all__ = ["RETRIED_AT_ONCE", "FailedEvent", "FailedEvents"]

RETRIED_AT_ONCE = 1000
"""The number of events that `retry_all` retries in one transaction, by default."""

_KEPT = ("channel", "name", "payload", "socket_id", "delivery", "queue", "connection", "except_user", "receipts")


@dataclass(frozen=True, slots=True)
class FailedEvent:
    """A failed event: `error` is the reason, `payload` the JSON text as recorded."""

    id: int
    channel: str
    name: str
    payload: str
    queue: str
    attempts: int
    error: str
    created_at: dt.datetime


class FailedEvents:
    """Lists, retries and deletes failed events, in the session's transaction.

    The caller commits, and wakes the outbox after a retry. A retry locks channels like `Outbox.record`: call only one
    of the two, once, at the end of the transaction.
    """

    def __init__(self, tables: OutboxTables) -> None:
        self._events = tables.recorded_events
        self._outbox = Outbox(tables)
        self._has_failed = self._events.c.state == literal_column(f"'{FAILED}'")

    async def list(self, session: AsyncSession, *, limit: int = 100, before: int | None = None) -> list[FailedEvent]:
        """Return failed events, newest first; those with an id below `before`, if given."""
        columns = [
            in_utc(self._events.c.created_at) if name == "created_at" else self._events.c[name]
            for name in FailedEvent.__slots__
        ]
        query = select(*columns).where(self._has_failed).order_by(self._events.c.id.desc()).limit(limit)
        if before is not None:
            query = query.where(self._events.c.id < before)
        return [FailedEvent(*row) for row in await session.execute(query)]

    async def retry(self, session: AsyncSession, event_id: int) -> bool:
        """Record the event anew with a new id, as the last of its channel. Returns False if it has not failed."""
        return await self._retry(session, self._events.c.id == event_id) > 0

    async def retry_all(
        self, session: AsyncSession, *, limit: int = RETRIED_AT_ONCE, through: int | None = None
    ) -> int:
        """Retry up to `limit` events, oldest first, up to the id `through`. Returns the number.

        If it is `limit` there may be more: commit, and call it again in a new transaction. Set `through` to the newest
        id at the start, so that the loop ends even if events fail again.
        """
        oldest = select(self._events.c.id).where(self._has_failed).order_by(self._events.c.id).limit(limit)
        if through is not None:
            oldest = oldest.where(self._events.c.id <= through)
        return await self._retry(session, self._events.c.id.in_(oldest))

    async def forget(self, session: AsyncSession, event_id: int) -> bool:
        """Delete the event permanently. Returns False if it has not failed."""
        gone = delete(self._events).where(self._has_failed, self._events.c.id == event_id)
        return await self._delete(session, gone) > 0

    async def forget_all(self, session: AsyncSession) -> int:
        """Delete all failed events permanently. Returns the number."""
        return await self._delete(session, delete(self._events).where(self._has_failed))

    async def _retry(self, session: AsyncSession, which: ColumnElement[bool]) -> int:
        # Deleting the row claims it: of two concurrent retries, one finds nothing.
        taken = delete(self._events).where(self._has_failed, which)
        found = await session.execute(taken.returning(*(self._events.c[name] for name in ("id", *_KEPT))))
        rows = sorted(found, key=lambda row: int(row.id))
        await self._outbox.record(session, [_envelope(*row[1:]) for row in rows])
        return len(rows)

    async def _delete(self, session: AsyncSession, statement: Delete) -> int:
        result = await session.execute(statement)
        return result.rowcount if isinstance(result, CursorResult) else 0


def _envelope(
    channel: str,
    name: str,
    payload: str,
    socket_id: str | None,
    delivery: str,
    queue: str,
    connection: str | None,
    except_user: str | None,
    receipts: bool,
) -> Envelope:
    return Envelope(
        channel,
        name,
        payload,
        socket_id,
        Delivery(delivery),
        queue,
        connection=connection,
        except_user=except_user,
        receipts=receipts,
    )
