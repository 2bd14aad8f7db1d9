"""Executes recording statements directly on the two asynchronous drivers, for speed.

SQLAlchemy's processing takes much of the time of a short statement, and each step of a SQLite cursor is a round trip
to another thread. Errors are raised as SQLAlchemy raises them. These statements do not appear in the engine's echo or
in cursor events.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import lru_cache
from itertools import chain, zip_longest
from typing import Any

from sqlalchemy import Connection, Executable
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from smartlink.broadcasting.outbox.statements import Recording

__all__ = ["DIRECT", "begin", "fetched", "written"]


def _by_asyncpg(connection: Connection, recording: Recording) -> list[int]:
    # Uses the adapter's cursor, which starts the transaction and caches the prepared statement.
    cursor = connection.connection.cursor()
    with _sqlalchemy_errors(connection, recording.sql, recording.values):
        cursor.execute(recording.sql, recording.values)
        return sorted(row[0] for row in cursor.fetchall())


def _by_aiosqlite(connection: Connection, recording: Recording) -> list[int]:
    # One round trip to the connection's thread instead of four.
    adapter: Any = connection.connection.dbapi_connection
    values = recording.by_name()
    with _sqlalchemy_errors(connection, recording.sql, recording.values):
        if not recording.returns_ids:
            row = adapter.run_async(lambda driver: driver.execute_insert(recording.sql, values))
            return [int(row[0])]
        rows: Iterable[Any] = adapter.run_async(lambda driver: driver.execute_fetchall(recording.sql, values))
        return sorted(row[0] for row in rows)


def begin(connection: Connection, sql: str) -> None:
    """Begin a transaction on aiosqlite. Raises what SQLAlchemy raises."""
    adapter: Any = connection.connection.dbapi_connection
    with _sqlalchemy_errors(connection, sql, ()):
        adapter.run_async(lambda driver: driver.execute_fetchall(sql))


@contextmanager
def _sqlalchemy_errors(connection: Connection, sql: str, values: Any) -> Iterator[None]:
    try:
        yield
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
            sql, values, error, base, hide_parameters=hidden, connection_invalidated=is_lost, dialect=dialect
        ) from error


DIRECT = {"asyncpg": _by_asyncpg, "aiosqlite": _by_aiosqlite}
"""Functions by driver name that record in a connection's transaction and return the ids."""


@lru_cache(maxsize=256)
def _compiled(statement: Any, dialect: Any) -> Any:
    return statement.compile(dialect=dialect, compile_kwargs={"render_postcompile": True})


def _positional(statement: Any, dialect: Any, given: Mapping[str, object]) -> tuple[str, list[Any]]:
    compiled = _compiled(statement, dialect)
    values = compiled.construct_params(given)
    return compiled.string, [values[name] for name in compiled.positiontup]


async def fetched(connection: AsyncConnection, statement: Executable) -> Sequence[Any]:
    """Execute a query that gives text and numbers, and return its rows. Raises what SQLAlchemy raises.

    Build it once. On SQLite this is one round trip to the connection's thread instead of four.
    """
    if connection.dialect.driver != "aiosqlite":
        return (await connection.execute(statement)).all()
    sql, values = _positional(statement, connection.dialect, {})
    async with _driver(connection, sql) as driver:
        return list(await driver.execute_fetchall(sql, values))


async def written(connection: AsyncConnection, statements: Sequence[Executable], **given: object) -> None:
    """Execute statements with text and numbers that return nothing. Raises what SQLAlchemy raises.

    Build them once, and give their values by name. On SQLite they are one transaction, and one round trip, on a
    connection without a transaction.
    """
    if connection.dialect.driver != "aiosqlite":
        for statement in statements:
            await connection.execute(statement, given)
        return
    own = (_literal(*_positional(each, connection.dialect, given)) for each in statements)
    script = ";\n".join(("BEGIN IMMEDIATE", *own, "COMMIT"))
    async with _driver(connection, script) as driver:
        await driver.executescript(script)


@asynccontextmanager
async def _driver(connection: AsyncConnection, sql: str) -> AsyncIterator[Any]:
    base = connection.dialect.loaded_dbapi.Error
    try:
        yield (await connection.get_raw_connection()).driver_connection
    except base as error:
        raise DBAPIError.instance(sql, None, error, base, dialect=connection.dialect) from error


def _literal(sql: str, values: Sequence[object]) -> str:
    """Write the values into a statement whose own text has no question mark."""
    texts = ("'" + each.replace("'", "''") + "'" if isinstance(each, str) else repr(each) for each in values)
    return "".join(chain(*zip_longest(sql.split("?"), texts, fillvalue="")))
