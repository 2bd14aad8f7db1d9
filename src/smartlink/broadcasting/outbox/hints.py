"""Advice for known errors of the database: one sentence, for logs and messages."""

from __future__ import annotations

from sqlalchemy.exc import DBAPIError

from smartlink.broadcasting.outbox.pgbouncer import pooler_hint

__all__ = ["hint"]

_UNDEFINED_TABLE = "42P01"
_NO_TABLE = "no such table"
_UNDEFINED_COLUMN = "42703"
_NO_COLUMN = ("no such column", "has no column named")
_COLUMNS = ("receipts", "trace", "delivery")
"""Columns that versions have added to or renamed in `recorded_events`."""
_TABLES = ("recorded_events", "outbox_lease", "outbox_workers", "outbox_watermark")


def hint(error: BaseException) -> str:
    """Return the cause of `error` and what to do about it, or an empty text."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    said = str(cause)
    # PostgreSQL has a code for this, which each driver provides in a different attribute.
    state = getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None)
    is_missing = state == _UNDEFINED_TABLE or _NO_TABLE in said
    if is_missing and (table := next((each for each in _TABLES if each in said), None)):
        return (
            f"the table {table} does not exist; create the outbox's tables: migrate the metadata that "
            "Broadcasting(base=...) or define_tables(metadata) added them to, or run manage.py migrate in Django, or "
            "smartlink db upgrade for the portal"
        )
    lacks_column = state == _UNDEFINED_COLUMN or any(each in said for each in _NO_COLUMN)
    if lacks_column and (column := next((each for each in _COLUMNS if each in said), None)):
        return (
            f"recorded_events lacks the column {column}, which this version needs: create a migration from the "
            "metadata again, or run manage.py migrate in Django, or smartlink db upgrade for the portal"
        )
    return pooler_hint(error)
