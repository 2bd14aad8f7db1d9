"""The outbox's tables, defined in the application's own metadata so that its migrations create them.

`recorded_events.id` is the clients' `eventId`: it only rises and is never reused. Per channel, ids rise in the order
of commits. `part` derives from the channel; workers divide a queue's parts among themselves.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, fields

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    DateTime,
    Dialect,
    Float,
    Index,
    Integer,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
    TypeDecorator,
    false,
    text,
    type_coerce,
)

from smartlink.broadcasting.envelope import DEFAULT_QUEUE

__all__ = ["OutboxTables", "UtcDateTime", "define_tables", "in_utc"]

PENDING, SENT, FAILED = "pending", "sent", "failed"

_BigId = BigInteger().with_variant(Integer, "sqlite")
# SQLAlchemy's own types, since migration tools do not import ours.
_Time = DateTime(timezone=True)


class UtcDateTime(TypeDecorator[dt.datetime]):
    """An aware time, stored in UTC. Returns aware times on SQLite too, which does not store time zones."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: dt.datetime | None, dialect: Dialect) -> dt.datetime | None:
        del dialect
        return None if value is None else value.astimezone(dt.UTC)

    def process_result_value(self, value: dt.datetime | None, dialect: Dialect) -> dt.datetime | None:
        del dialect
        if value is None or value.tzinfo is not None:
            return value
        return value.replace(tzinfo=dt.UTC)


def in_utc(time: ColumnElement[dt.datetime]) -> ColumnElement[dt.datetime]:
    """Return a time column of these tables as an aware time on every database, in results and comparisons."""
    return type_coerce(time, UtcDateTime).label(time.key)


@dataclass(frozen=True, slots=True)
class OutboxTables:
    """The tables, as returned by `define_tables`."""

    recorded_events: Table
    outbox_watermark: Table
    outbox_lease: Table
    outbox_workers: Table


def define_tables(metadata: MetaData) -> OutboxTables:
    """Define the outbox's tables in `metadata` and return them, or those defined before. They need no initial rows."""
    prefix = f"{metadata.schema}." if metadata.schema else ""
    names = [f"{prefix}{each.name}" for each in fields(OutboxTables)]
    if all(name in metadata.tables for name in names):
        return OutboxTables(*(metadata.tables[name] for name in names))
    recorded_events = Table(
        "recorded_events",
        metadata,
        Column("id", _BigId, primary_key=True, autoincrement=True),
        Column("channel", String(200), nullable=False),
        Column("name", String(200), nullable=False),
        Column("payload", Text, nullable=False),
        Column("socket_id", String(64)),
        Column("delivery", String(8), nullable=False),
        Column("state", String(8), nullable=False, server_default=PENDING),
        Column("queue", String(32), nullable=False, server_default=DEFAULT_QUEUE),
        Column("part", SmallInteger, nullable=False, server_default="0"),
        Column("attempts", Integer, nullable=False, server_default="0"),
        Column("connection", String(64)),
        Column("except_user", String(200)),
        Column("receipts", Boolean, nullable=False, server_default=false()),
        Column("trace", String(55)),
        Column("strikes", Integer, nullable=False, server_default="0"),
        Column("available_at", _Time),
        Column("error", Text),
        Column("created_at", _Time, nullable=False),
        Column("sent_at", _Time),
        Index("ix_recorded_events_channel", "channel", "id"),
        _partial_index("ix_recorded_events_waiting", "state = 'pending'", "queue", "id"),
        _partial_index("ix_recorded_events_held", "state = 'pending' AND available_at IS NOT NULL", "channel"),
        _partial_index("ix_recorded_events_failed", "state = 'failed'", "id"),
        sqlite_autoincrement=True,
    )
    outbox_watermark = Table(
        "outbox_watermark",
        metadata,
        Column("id", Integer, primary_key=True, autoincrement=False),
        Column("pruned_through", _BigId, nullable=False),
    )
    outbox_lease = Table(
        "outbox_lease",
        metadata,
        Column("name", String(40), primary_key=True),
        Column("holder", String(64), nullable=False),
        Column("expires_at", Float(53), nullable=False),
    )
    outbox_workers = Table(
        "outbox_workers",
        metadata,
        Column("id", String(64), primary_key=True),
        Column("host", String(255), nullable=False),
        Column("pid", Integer, nullable=False),
        Column("queues", Text, nullable=False),
        Column("started_at", Float(53), nullable=False),
        Column("seen_at", Float(53), nullable=False),
        Column("sent", _BigId, nullable=False, server_default="0"),
        Column("failed", _BigId, nullable=False, server_default="0"),
    )
    return OutboxTables(recorded_events, outbox_watermark, outbox_lease, outbox_workers)


def _partial_index(name: str, where: str, *columns: str) -> Index:
    return Index(name, *columns, sqlite_where=text(where), postgresql_where=text(where))
