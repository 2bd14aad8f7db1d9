"""Executes recording statements directly on the two asynchronous drivers, for speed.

SQLAlchemy's processing takes much of the time of a short statement, and each step of a SQLite cursor is a round trip
to another thread. Errors are raised as SQLAlchemy raises them. These statements do not appear in the engine's echo or
in cursor events.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection, Executable
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from smartlink.broadcasting.outbox.statements import Recording

__all__ = ["DIRECT", "fetched"]


def _by_asyncpg(connection: Connection, recording: Recording) -> list[int]:
    # Uses the adapter's cursor, which starts the transaction and caches the prepared statement.
    cursor = connection.connection.cursor()
    cursor.execute(recording.sql, recording.values)
    return sorted(row[0] for row in cursor.fetchall())


def _by_aiosqlite(connection: Connection, recording: Recording) -> list[int]:
    # One round trip to the connection's thread instead of four.
    adapter: Any = connection.connection.dbapi_connection
    values = recording.by_name()
    if not recording.returns_ids:
        row = adapter.run_async(lambda driver: driver.execute_insert(recording.sql, values))
        return [int(row[0])]
    rows: Iterable[Any] = adapter.run_async(lambda driver: driver.execute_fetchall(recording.sql, values))
    return sorted(row[0] for row in rows)


def _with_sqlalchemy_errors(
    run: Callable[[Connection, Recording], list[int]],
) -> Callable[[Connection, Recording], list[int]]:
    def record(connection: Connection, recording: Recording) -> list[int]:
        try:
            return run(connection, recording)
        except BaseException as error:
            dialect: Any = connection.dialect
            base = dialect.loaded_dbapi.Error
            is_from_driver = isinstance(error, base)
            # A cancelled caller leaves a statement running: the connection must not be reused.
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


DIRECT = {"asyncpg": _with_sqlalchemy_errors(_by_asyncpg), "aiosqlite": _with_sqlalchemy_errors(_by_aiosqlite)}
"""Functions by driver name that record in a connection's transaction and return the ids."""


@lru_cache(maxsize=256)
def _compiled(statement: Any, dialect: Any) -> Any:
    return statement.compile(dialect=dialect, compile_kwargs={"render_postcompile": True})


async def fetched(connection: AsyncConnection, statement: Executable, **given: object) -> Sequence[Any]:
    """Execute a statement with text and numbers, and return its rows. Raises what SQLAlchemy raises.

    Build the statement once, and give its values by name. On SQLite this is one round trip to the connection's thread
    instead of four.
    """
    if connection.dialect.driver != "aiosqlite":
        result = await connection.execute(statement, given)
        return result.all() if result.returns_rows else ()
    compiled = _compiled(statement, connection.dialect)
    all_values = compiled.construct_params(given)
    values = [all_values[name] for name in compiled.positiontup]
    raw: Any = (await connection.get_raw_connection()).driver_connection
    try:
        return list(await raw.execute_fetchall(str(compiled), values))
    except connection.dialect.loaded_dbapi.Error as error:
        raise DBAPIError.instance(
            str(compiled), values, error, connection.dialect.loaded_dbapi.Error, dialect=connection.dialect
        ) from error
