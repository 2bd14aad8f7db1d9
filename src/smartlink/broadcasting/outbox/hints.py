"""What to do about an error of the database, where that is known: one sentence, for logs and messages."""

from __future__ import annotations

from sqlalchemy.exc import DBAPIError

from smartlink.broadcasting.outbox.pgbouncer import pooler_hint

__all__ = ["hint"]

_NO_TABLE = ("UndefinedTable", "no such table")
_TABLES = ("recorded_events", "outbox_lease", "outbox_workers", "outbox_watermark")


def hint(error: BaseException) -> str:
    """The cause and the cure of `error`; empty where it says enough itself."""
    said = f"{type(error.orig).__name__}: {error.orig}" if isinstance(error, DBAPIError) else str(error)
    if any(sign in said for sign in _NO_TABLE) and (table := next((each for each in _TABLES if each in said), None)):
        return (
            f"the table {table} is not there; create the outbox's tables: add define_tables(metadata) to your "
            "migrations, in Django run manage.py migrate, for the portal smartlink db upgrade"
        )
    return pooler_hint(error)
