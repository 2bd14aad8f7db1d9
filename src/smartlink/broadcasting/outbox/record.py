"""The outbox's front: record events with the change they tell of, and read them back to close a gap.

Order. Two transactions that overlap may commit in the other order than they took their ids, and then a reader that
has seen the higher id would never look for the lower one. So on PostgreSQL a transaction holds a lock for each
channel it records on, from before it takes an id until its commit: per channel, ids rise in the order of commits.
SQLite has one writer at a time and keeps that order by itself.
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
    """A durable event as clients hear it: `payload` is JSON text and carries the `eventId`."""

    id: int
    channel: str
    name: str
    payload: str
    created_at: dt.datetime


def with_event_id(payload: str, event_id: int) -> str:
    """The payload, a JSON object, with `eventId` as its first member."""
    rest = payload[1:]
    return f'{{"eventId":{event_id}{"" if rest.startswith("}") else ","}{rest}'


class Outbox:
    """Records events in the caller's transaction; a `Relay` sends them after it.

    `wakeup` rings for relays in this process. `bell` rings for workers elsewhere over Redis; with `notify` their
    PostgreSQL connections hear of the commit. Without either a worker elsewhere finds events by itself, when it
    sweeps. NOTIFY makes transactions that record commit one after the other: switch it off where Redis rings.
    """

    def __init__(self, tables: OutboxTables, *, notify: bool = True, bell: RedisBell | None = None) -> None:
        self.wakeup = Wakeup()
        self._bell = bell
        self._notify = notify
        self._statements: dict[str, _Prepared] = {}
        events = tables.recorded_events
        self._table = events
        self._at: Any = {"clause": insert(events)}
        """Where to record, for a session that chooses among several engines."""
        durable = (events.c.channel == bindparam("channel"), events.c.delivery == Delivery.DURABLE.value)
        self._watermark = select(func.max(tables.outbox_watermark.c.pruned_through))
        self._latest = select(
            select(events.c.id).where(*durable).order_by(events.c.id.desc()).limit(1).scalar_subquery(),
            self._watermark.scalar_subquery(),
        )
        # Written out, so that the index of what failed serves it.
        is_aside = events.c.state == literal_column(f"'{FAILED}'")
        self._missing = select(
            self._watermark.scalar_subquery(),
            select(events.c.id).where(*durable, is_aside, events.c.id > bindparam("after")).exists(),
        )
        self._after = (
            select(events.c.id, events.c.channel, events.c.name, events.c.payload, in_utc(events.c.created_at))
            # What was set aside has been overtaken; when it is retried it comes again, behind the others.
            .where(*durable, events.c.id > bindparam("after"), events.c.state != FAILED)
            .order_by(events.c.id)
            .limit(bindparam("at_most", type_=Integer))
        )

    async def record(
        self, into: AsyncSession | async_scoped_session[Any] | AsyncConnection, envelopes: Sequence[Envelope]
    ) -> list[int]:
        """Record `envelopes` in the transaction of `into` and return their ids, in order.

        Call it once, as the transaction's last act before the commit: on PostgreSQL it holds a lock for each
        channel until then, and a second call could meet another transaction crosswise. After the commit call
        `wake()`. Raises ValueError for a live envelope, which is never recorded: send it after the commit; and
        BroadcastConfigError for a database that keeps no order, and for a queue's name that cannot be.
        """
        own = into() if isinstance(into, async_scoped_session) else into
        if isinstance(own, Session | Connection | scoped_session):
            raise TypeError("record is for sessions that await; for a plain one call outbox.record_sync(session, ...)")
        return await own.run_sync(self.record_sync, envelopes) if envelopes else []

    def record_sync(self, into: Session | scoped_session[Any] | Connection, envelopes: Sequence[Envelope]) -> list[int]:
        """As `record`, for the sessions and connections of applications that do not await."""
        if not envelopes:
            return []
        own = into() if isinstance(into, scoped_session) else into
        if isinstance(own, AsyncSession | AsyncConnection | async_scoped_session):
            raise TypeError(
                "record_sync is for sessions that do not await; for this one: await outbox.record(session, ...)"
            )
        if isinstance(own, Session):
            if own.new or own.deleted or own.dirty:
                # What still has to take row locks takes them before the channels', never crosswise.
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
        """The connection on which `session` records."""
        return session.connection(bind_arguments=self._at)

    def engine_of(self, session: Session) -> Engine:
        """The engine of the database in which `session` records."""
        return session.get_bind(**self._at).engine

    def wake(self, queues: Iterable[str] = (DEFAULT_QUEUE,)) -> None:
        """Tell the workers that something was committed on `queues`. Never waits; harmless when there is none."""
        self.wakeup.set()
        if self._bell is not None:
            self._bell.ring(set(queues))

    def close(self) -> None:
        """End what rings over Redis."""
        if self._bell is not None:
            self._bell.close()

    async def latest_id(self, session: AsyncSession, channel: str) -> int:
        """Where a reader of `channel` who has seen everything stands: give it to `events_after` later.

        The channel's latest durable event, or what has been pruned if that is further; 0 when there was none.
        """
        latest, pruned_through = (await session.execute(self._latest, {"channel": channel})).one()
        return max(latest or 0, pruned_through or 0)

    async def events_after(
        self, session: AsyncSession, channel: str, after: int, limit: int = 200
    ) -> tuple[list[RecordedEvent], bool]:
        """Durable events of `channel` with an id above `after`, oldest first, at most `limit`; and "complete".

        Complete is False when the client must load its state anew, because some are missing: pruned, for good; or set
        aside when they failed, which nobody heard, and which a retry records anew, behind the others. When `limit`
        events came, ask again after the last one.
        """
        found = await session.execute(self._after, {"channel": channel, "after": after, "at_most": limit})
        events = [
            RecordedEvent(event_id, name_of_channel, name, with_event_id(payload, event_id), created_at)
            for event_id, name_of_channel, name, payload, created_at in found
        ]
        # Asked last: what is pruned or set aside between the two questions then shows as incomplete.
        missing = await session.execute(self._missing, {"channel": channel, "after": after})
        pruned_through, is_any_aside = missing.one()
        return events, after >= (pruned_through or 0) and not is_any_aside


class _Prepared:
    """The statements, and the way to the driver: directly where we know how, otherwise by SQLAlchemy."""

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
        # In the order of rows by their making: ids were taken in that order.
        return sorted(row[0] for row in result)
