"""The outbox's front: record events with the change they tell of, and read them back to close a gap.

Order. Two transactions that overlap may commit in the other order than they took their ids, and then a reader that
has seen the higher id would never look for the lower one. So on PostgreSQL a transaction holds a lock for each
channel it records on, from before it takes an id until its commit: per channel, ids rise in the order of commits.
SQLite has one writer at a time and keeps that order by itself.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import BigInteger, Integer, Table, bindparam, func, insert, literal_column, select, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from sqlalchemy.sql.dml import ReturningInsert

from smartlink.broadcasting.envelope import Envelope, Promise
from smartlink.broadcasting.errors import BroadcastConfigError
from smartlink.broadcasting.outbox.tables import OutboxTables

__all__ = ["Outbox", "RecordedEvent", "with_event_id"]


_RECORDED = ("channel", "name", "payload", "socket_id", "promise", "created_at")


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

    `wakeup` is the event a relay in the same event loop waits on; a relay elsewhere looks by itself.
    """

    def __init__(self, tables: OutboxTables) -> None:
        self.wakeup = asyncio.Event()
        events = tables.recorded_events
        self._insert = insert(events)
        self._lock_and_insert = _lock_and_insert(events)
        self._insert_many = insert(events).returning(events.c.id, sort_by_parameter_order=True)
        self._lock = text("SELECT pg_advisory_xact_lock(k) FROM unnest(:keys) AS k").bindparams(
            bindparam("keys", type_=ARRAY(BigInteger))
        )
        durable = (events.c.channel == bindparam("channel"), events.c.promise == Promise.DURABLE.value)
        self._watermark = select(func.max(tables.outbox_watermark.c.pruned_through))
        self._latest = select(
            select(events.c.id).where(*durable).order_by(events.c.id.desc()).limit(1).scalar_subquery(),
            self._watermark.scalar_subquery(),
        )
        self._after = (
            select(events.c.id, events.c.channel, events.c.name, events.c.payload, events.c.created_at)
            .where(*durable, events.c.id > bindparam("after"))
            .order_by(events.c.id)
            .limit(bindparam("at_most", type_=Integer))
        )

    async def record(self, session: AsyncSession, envelopes: Sequence[Envelope]) -> list[int]:
        """Record `envelopes` in the session's transaction and return their ids, in order.

        Call it once, as the transaction's last act before the commit: on PostgreSQL it holds a lock for each
        channel until then, and a second call could meet another transaction crosswise. After the commit call
        `wake()`. Raises ValueError for a live envelope, which is never recorded: send it after the commit.
        """
        if not envelopes:
            return []
        now = dt.datetime.now(dt.UTC)
        rows = [_row(envelope, now) for envelope in envelopes]
        if session.new or session.dirty or session.deleted:
            # What still has to take row locks takes them before the channels', never crosswise.
            await session.flush()
        connection = await session.connection()
        if len(rows) == 1:
            return [await self._insert_one(connection, rows[0])]
        await self._lock_channels(connection, {envelope.channel for envelope in envelopes})
        return list((await connection.execute(self._insert_many, rows)).scalars())

    def wake(self) -> None:
        """Tell the relay of this process that something was committed. Harmless when there is none."""
        self.wakeup.set()

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

        Complete is False when events after `after` may have been pruned: what is missing is missing for good, the
        client must load its state anew. When `limit` events came, ask again after the last one.
        """
        found = await session.execute(self._after, {"channel": channel, "after": after, "at_most": limit})
        events = [
            RecordedEvent(event_id, name_of_channel, name, with_event_id(payload, event_id), created_at)
            for event_id, name_of_channel, name, payload, created_at in found
        ]
        # Asked last: what is pruned between the two questions then shows as incomplete.
        pruned_through = await session.scalar(self._watermark) or 0
        return events, after >= pruned_through

    async def _insert_one(self, connection: AsyncConnection, row: dict[str, object]) -> int:
        if _has_one_writer(connection):
            inserted = await connection.execute(self._insert, row)
            [event_id] = list(inserted.inserted_primary_key or ())
        else:
            key = _lock_key(str(row["channel"]))
            event_id = await connection.scalar(self._lock_and_insert, {"lock_key": key, **row})
        return int(event_id)

    async def _lock_channels(self, connection: AsyncConnection, channels: Iterable[str]) -> None:
        if not _has_one_writer(connection):
            # Sorted, so that two transactions with the same channels never wait for each other.
            await connection.execute(self._lock, {"keys": sorted({_lock_key(channel) for channel in channels})})


def _has_one_writer(connection: AsyncConnection) -> bool:
    dialect = connection.dialect.name
    if dialect not in ("sqlite", "postgresql"):
        raise BroadcastConfigError(
            f"the outbox keeps its order on sqlite and postgresql, not on {dialect}; change DATABASE_URL"
        )
    return dialect == "sqlite"


def _lock_and_insert(events: Table) -> ReturningInsert[tuple[int]]:
    """Lock the one channel and insert the one row, in one round trip.

    OFFSET 0 keeps the lock a step of its own below the insert, so that the row takes its id once it is held.
    """
    columns = [events.c[name] for name in _RECORDED]
    lock = select(func.pg_advisory_xact_lock(bindparam("lock_key", type_=BigInteger))).offset(literal_column("0"))
    row = select(*(bindparam(column.name, type_=column.type) for column in columns))
    return insert(events).from_select(columns, row.select_from(lock.subquery("locked"))).returning(events.c.id)


def _row(envelope: Envelope, now: dt.datetime) -> dict[str, object]:
    if envelope.promise is Promise.LIVE:
        raise ValueError(f"{envelope.name} is live: it is never recorded; send it after the commit")
    return {
        "channel": envelope.channel,
        "name": envelope.name,
        "payload": envelope.payload,
        "socket_id": envelope.socket_id,
        "promise": envelope.promise.value,
        "created_at": now,
    }


def _lock_key(channel: str) -> int:
    digest = hashlib.blake2b(channel.encode(), digest_size=8, person=b"smartlink-outbox").digest()
    return int.from_bytes(digest, "big", signed=True)
