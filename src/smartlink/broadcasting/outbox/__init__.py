"""The outbox: records events in the transaction of the change they announce, and sends them after it."""

from __future__ import annotations

import smartlink.broadcasting.outbox.requirements  # first: reports missing packages  # noqa: F401
from smartlink.broadcasting.outbox.failed import RETRIED_AT_ONCE, FailedEvent, FailedEvents
from smartlink.broadcasting.outbox.pgbouncer import engine_for
from smartlink.broadcasting.outbox.record import Outbox, RecordedEvent
from smartlink.broadcasting.outbox.relay import Relay, Until
from smartlink.broadcasting.outbox.schedule import Schedule
from smartlink.broadcasting.outbox.status import OutboxStatus, read_status
from smartlink.broadcasting.outbox.tables import OutboxTables, define_tables
from smartlink.broadcasting.outbox.wakeup import PostgresListener, RedisBell, RedisListener, SqliteListener, Wakeup
from smartlink.broadcasting.outbox.worker import run_worker

__all__ = [
    "RETRIED_AT_ONCE",
    "FailedEvent",
    "FailedEvents",
    "Outbox",
    "OutboxStatus",
    "OutboxTables",
    "PostgresListener",
    "RecordedEvent",
    "RedisBell",
    "RedisListener",
    "Relay",
    "Schedule",
    "SqliteListener",
    "Until",
    "Wakeup",
    "define_tables",
    "engine_for",
    "read_status",
    "run_worker",
]
