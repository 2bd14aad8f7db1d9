"""The recording side of the outbox: records events with the change they announce, and reads them back for clients.

Order. Overlapping transactions may commit in a different order than they take their ids, and a reader that has seen
the higher id would then never ask for the lower one. So on PostgreSQL, a transaction locks each channel it records on
before it takes an id and until it commits: per channel, ids rise in the order of commits. SQLite has one writer at a
time, which has the same effect.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    Connection,
    Dialect,
    Engine,
    Integer,
    Table,
    bindparam,
    func,
    insert,
    literal_column,
    select,
    text,
)
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_scoped_session
from sqlalchemy.orm import Session, scoped_session

from smartlink.broadcasting.envelope import DEFAULT_QUEUE, Delivery, Envelope
from smartlink.broadcasting.outbox.direct import DIRECT
from smartlink.broadcasting.outbox.hints import hint
from smartlink.broadcasting.outbox.statements import statements_for
from smartlink.broadcasting.outbox.tables import FAILED, OutboxTables, in_utc
from smartlink.broadcasting.outbox.wakeup import RedisBell, Wakeup

__all__ = ["Outbox", "RecordedEvent", "with_event_id"]


@dataclass(frozen=True, slots=True)
class RecordedEvent:
    """A durable event as clients receive it: `payload` is JSON text that contains the `eventId`."""

    id: int
    channel: str
    name: str
    payload: str
    created_at: dt.datetime


def with_event_id(payload: str, event_id: int) -> str:
    """Return the payload, a JSON object, with `eventId` added as its first member."""
    rest = payload[1:]
    return f'{{"eventId":{event_id}{"" if rest.startswith("}") else ","}{rest}'


class Outbox:
    """Records events in the caller's transaction; a `Relay` sends them after the commit.

    `wakeup` wakes relays in this process. `bell` wakes workers elsewhere through Redis, `notify` through PostgreSQL's
    NOTIFY; without either, they find events when they sweep. NOTIFY serializes the commits of transactions that record:
    disable it if you use Redis.
    """

    def __init__(self, tables: OutboxTables, *, notify: bool = True, bell: RedisBell | None = None) -> None:
        self.wakeup = Wakeup()
        self._bell = bell
        self._notify = notify
        self._statements: dict[str, _Prepared] = {}
        events = tables.recorded_events
        self._table = events
        self._at: Any = {"clause": insert(events)}
        """The bind arguments of the table, for sessions with several engines."""
        durable = (events.c.channel == bindparam("channel"), events.c.delivery == Delivery.DURABLE.value)
        self._watermark = select(func.max(tables.outbox_watermark.c.pruned_through))
        self._latest = select(
            select(events.c.id).where(*durable).order_by(events.c.id.desc()).limit(1).scalar_subquery(),
            self._watermark.scalar_subquery(),
        )
        # A literal, so that the partial index of failed events is used.
        is_aside = events.c.state == literal_column(f"'{FAILED}'")
        self._missing = select(
            self._watermark.scalar_subquery(),
            select(events.c.id).where(*durable, is_aside, events.c.id > bindparam("after")).exists(),
        )
        self._after = (
            select(events.c.id, events.c.channel, events.c.name, events.c.payload, in_utc(events.c.created_at))
            # Later events have overtaken failed ones; a retry records them anew, after the others.
            .where(*durable, events.c.id > bindparam("after"), events.c.state != FAILED)
            .order_by(events.c.id)
            .limit(bindparam("at_most", type_=Integer))
        )

    async def record(
        self, into: AsyncSession | async_scoped_session[Any] | AsyncConnection, envelopes: Sequence[Envelope]
    ) -> list[int]:
        """Record `envelopes` in the transaction of `into`. Returns their ids, in order.

        Call it once, just before the commit: on PostgreSQL it locks each channel until then, and a second call could
        deadlock with another transaction. Call `wake()` after the commit. Raises ValueError for a live envelope, which
        is never recorded but sent after the commit; TypeError for a synchronous session; and BroadcastConfigError for
        an unsupported database or an invalid queue name.
        """
        own = into() if isinstance(into, async_scoped_session) else into
        if isinstance(own, Session | Connection | scoped_session):
            raise TypeError("record needs an asynchronous session; call outbox.record_sync(session, ...) instead")
        return await own.run_sync(self.record_sync, envelopes) if envelopes else []

    def record_sync(self, into: Session | scoped_session[Any] | Connection, envelopes: Sequence[Envelope]) -> list[int]:
        """Record like `record`, for synchronous sessions and connections."""
        if not envelopes:
            return []
        own = into() if isinstance(into, scoped_session) else into
        if isinstance(own, AsyncSession | AsyncConnection | async_scoped_session):
            raise TypeError("record_sync needs a synchronous session; use: await outbox.record(session, ...)")
        if isinstance(own, Session):
            if own.new or own.deleted or own.dirty:
                # Take row locks before the channels' locks, to avoid deadlocks.
                own.flush()
            connection = self.connection_of(own)
        else:
            connection = own
        driver = connection.dialect.driver
        statements = self._statements.get(driver)
        if statements is None:
            statements = self._statements[driver] = _Prepared(connection.dialect, self._table, notify=self._notify)
        try:
            return statements.record(connection, envelopes)
        except DBAPIError as error:
            if advice := hint(error):
                error.add_note(advice)
            raise

    def connection_of(self, session: Session) -> Connection:
        """Return the connection on which `session` records."""
        return session.connection(bind_arguments=self._at)

    def engine_of(self, session: Session) -> Engine:
        """The engine of the database in which `session` records."""
        return session.get_bind(**self._at).engine

    def wake(self, queues: Iterable[str] = (DEFAULT_QUEUE,)) -> None:
        """Wake the workers of `queues` after a commit. Never blocks."""
        self.wakeup.set()
        if self._bell is not None:
            self._bell.ring(set(queues))

    def close(self) -> None:
        """Stop waking workers through Redis."""
        if self._bell is not None:
            self._bell.close()

    async def latest_id(self, session: AsyncSession, channel: str) -> int:
        """Return the id up to which a reader of `channel` is current, to pass to `events_after` later.

        This is the id of the channel's latest durable event, or of the last pruned one if higher; 0 without any.
        """
        latest, pruned_through = (await session.execute(self._latest, {"channel": channel})).one()
        return max(latest or 0, pruned_through or 0)

    async def events_after(
        self, session: AsyncSession, channel: str, after: int, limit: int = 200
    ) -> tuple[list[RecordedEvent], bool]:
        """Return up to `limit` durable events of `channel` with an id above `after`, oldest first, and "complete".

        Complete is False if events are missing and the client must reload its state: some were pruned, or have failed
        (a retry records them anew, after the others). If `limit` events are returned, ask again after the last one.
        """
        found = await session.execute(self._after, {"channel": channel, "after": after, "at_most": limit})
        events = [
            RecordedEvent(event_id, name_of_channel, name, with_event_id(payload, event_id), created_at)
            for event_id, name_of_channel, name, payload, created_at in found
        ]
        # Read last, so that events pruned or failed between the two queries show as incomplete.
        missing = await session.execute(self._missing, {"channel": channel, "after": after})
        pruned_through, has_failed = missing.one()
        return events, after >= (pruned_through or 0) and not has_failed


class _Prepared:
    """The statements of a driver, executed directly where supported, else through SQLAlchemy."""

    def __init__(self, dialect: Dialect, table: Table, *, notify: bool) -> None:
        marks = "dollar" if dialect.driver == "asyncpg" else "named"
        self._direct = DIRECT.get(dialect.driver)
        name = dialect.identifier_preparer.format_table(table)
        self._statements = statements_for(dialect.name, marks, name, notify=notify)
        self._texts = {sql: text(sql) for sql in (self._statements.one, self._statements.many)}

    def record(self, connection: Connection, envelopes: Sequence[Envelope]) -> list[int]:
        recording = self._statements.recording(envelopes)
        if self._direct is not None:
            return self._direct(connection, recording)
        result = connection.execute(self._texts[recording.sql], recording.by_name())
        if not recording.returns_ids:
            return [int(result.lastrowid)]
        # Rows take their ids in order.
        return sorted(row[0] for row in result)
