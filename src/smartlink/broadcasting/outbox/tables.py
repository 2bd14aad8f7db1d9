"""The outbox's tables, for the application's own metadata, so that its migrations create them.

`recorded_events.id` is the `eventId` of clients: it only rises and is never used twice. Per channel, ids rise in
the order of commits. `batch` keeps together what is sent in one call, so that a repeat is the same call.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    Dialect,
    Float,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    text,
)

__all__ = ["OutboxTables", "UtcDateTime", "define_tables"]

PENDING, SENT, FAILED = "pending", "sent", "failed"

_BigId = BigInteger().with_variant(Integer, "sqlite")


class UtcDateTime(TypeDecorator[dt.datetime]):
    """An aware time, stored in UTC; SQLite, which knows no zones, gives it back aware too."""

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


@dataclass(frozen=True, slots=True)
class OutboxTables:
    """The tables, as `define_tables` put them into a metadata."""

    recorded_events: Table
    outbox_watermark: Table
    outbox_lease: Table


def define_tables(metadata: MetaData) -> OutboxTables:
    """Define the outbox's tables in `metadata`. They need no rows to start with."""
    recorded_events = Table(
        "recorded_events",
        metadata,
        Column("id", _BigId, primary_key=True, autoincrement=True),
        Column("channel", String(200), nullable=False),
        Column("name", String(200), nullable=False),
        Column("payload", Text, nullable=False),
        Column("socket_id", String(64)),
        Column("promise", String(8), nullable=False),
        Column("state", String(8), nullable=False, server_default=PENDING),
        Column("batch", _BigId),
        Column("attempts", Integer, nullable=False, server_default="0"),
        Column("available_at", UtcDateTime),
        Column("error", Text),
        Column("created_at", UtcDateTime, nullable=False),
        Column("sent_at", UtcDateTime),
        Index("ix_recorded_events_channel", "channel", "id"),
        _partial_index("ix_recorded_events_pending", "id", "state = 'pending'"),
        _partial_index("ix_recorded_events_held", "channel", "state = 'pending' AND available_at IS NOT NULL"),
        _partial_index("ix_recorded_events_failed", "id", "state = 'failed'"),
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
    return OutboxTables(recorded_events, outbox_watermark, outbox_lease)


def _partial_index(name: str, column: str, where: str) -> Index:
    return Index(name, column, sqlite_where=text(where), postgresql_where=text(where))
