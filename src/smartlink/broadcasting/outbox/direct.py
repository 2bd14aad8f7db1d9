"""A prepared statement past SQLAlchemy's statements and results, straight to the two asynchronous drivers.

SQLAlchemy's care for values and results is much of what a short statement takes, and every step of a SQLite cursor is
a trip to another thread and back. What goes wrong is told as SQLAlchemy tells it. Its engine's echo and its cursor
events do not hear of these statements.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from smartlink.broadcasting.outbox.statements import Recording

__all__ = ["DIRECT"]


def _by_asyncpg(connection: Connection, recording: Recording) -> list[int]:
    # Through the adapter's cursor, which starts the transaction and keeps the statement prepared.
    cursor = connection.connection.cursor()
    cursor.execute(recording.sql, recording.values)
    return sorted(row[0] for row in cursor.fetchall())


def _by_aiosqlite(connection: Connection, recording: Recording) -> list[int]:
    # One trip to the connection's thread, not four.
    adapter: Any = connection.connection.dbapi_connection
    values = recording.by_name()
    if not recording.returns_ids:
        row = adapter.run_async(lambda driver: driver.execute_insert(recording.sql, values))
        return [int(row[0])]
    rows: Iterable[Any] = adapter.run_async(lambda driver: driver.execute_fetchall(recording.sql, values))
    return sorted(row[0] for row in rows)


def _told_by_sqlalchemy(
    run: Callable[[Connection, Recording], list[int]],
) -> Callable[[Connection, Recording], list[int]]:
    def record(connection: Connection, recording: Recording) -> list[int]:
        try:
            return run(connection, recording)
        except BaseException as error:
            dialect: Any = connection.dialect
            base = dialect.loaded_dbapi.Error
            is_from_driver = isinstance(error, base)
            # Whoever is cancelled leaves a statement under way: nobody else may get that connection.
            is_lost = not isinstance(error, Exception) or (
                is_from_driver and dialect.is_disconnect(error, connection.connection, None)
            )
            if is_lost and not connection.closed:
                connection.invalidate(error)
            if not is_from_driver:
                raise
            hidden = connection.engine.hide_parameters
            raise DBAPIError.instance(
                recording.sql,
                recording.values,
                error,
                base,
                hide_parameters=hidden,
                connection_invalidated=is_lost,
                dialect=dialect,
            ) from error

    return record


DIRECT = {"asyncpg": _told_by_sqlalchemy(_by_asyncpg), "aiosqlite": _told_by_sqlalchemy(_by_aiosqlite)}
"""By the name of the driver: records in the transaction of a connection and returns the ids."""
