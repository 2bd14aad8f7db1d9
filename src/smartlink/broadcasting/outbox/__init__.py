"""The outbox: events are recorded in the transaction of the change they tell of, and sent after it."""

from __future__ import annotations

from smartlink.broadcasting.outbox.failed import FailedEvent, FailedEvents
from smartlink.broadcasting.outbox.record import Outbox, RecordedEvent
from smartlink.broadcasting.outbox.relay import Relay
from smartlink.broadcasting.outbox.tables import OutboxTables, define_tables

__all__ = ["FailedEvent", "FailedEvents", "Outbox", "OutboxTables", "RecordedEvent", "Relay", "define_tables"]
