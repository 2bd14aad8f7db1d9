"""The database: one engine, reading and writing transactions, and which errors mean that it is unavailable.

SQLite runs in WAL mode. Its driver's own transactions are disabled, and ours begin with `BEGIN IMMEDIATE` if they
will write: a transaction that reads before it writes could otherwise fail when another one writes in between.
Within this process, writers queue behind a lock rather than SQLite's busy handler, which is not fair.

On PostgreSQL, readers run outside transactions, each statement on its own snapshot, as under READ COMMITTED: this
saves two round trips. A pooled connection is pinged before use only after it has been idle.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from sqlalchemy import BigInteger, Dialect, Integer, MetaData, Select, event, make_url
from sqlalchemy.exc import DBAPIError, DisconnectionError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession
from sqlalchemy.orm import DeclarativeBase
from sqlalchemy.pool import ConnectionPoolEntry
from sqlalchemy.util import greenlet_spawn

from smartlink.broadcasting.outbox import define_tables
from smartlink.broadcasting.outbox.direct import begin
from smartlink.broadcasting.outbox.pgbouncer import engine_for, is_pooled, outside_transactions
from smartlink.broadcasting.outbox.tables import UtcDateTime
from smartlink.portal.shared.errors import DatabaseAway

__all__ = [
    "Base",
    "BigId",
    "Database",
    "Fetch",
    "UtcDateTime",
    "is_away",
    "make_file",
    "outbox_tables",
    "prepare_sqlite",
]

WAIT_S = 5.0
MAX_LOG_BYTES = 16 * 1024 * 1024
RESTED_S = 5.0
"""A pooled connection that has been idle for this long is pinged before use."""
_CONSTRAINTS = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}
_WRITES = "smartlink_writes"
_LIMITS = {"lock_timeout": "5s", "idle_in_transaction_session_timeout": "30s"}

BigId = BigInteger().with_variant(Integer, "sqlite")


def make_file(name: str | None) -> None:
    """Create SQLite's file unless it exists, readable by this user only. SQLite copies the mode to its other files."""
    if name and name != ":memory:":
        file = Path(name)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch(0o600)


class Base(DeclarativeBase):
    """Base of the portal's tables."""

    metadata = MetaData(naming_convention=_CONSTRAINTS)


# The outbox names its own constraints, which do not follow our convention.
outbox_tables = define_tables(MetaData())


class Database:
    """Opens sessions. `reading()` never commits; `writing()` commits when its block ends without an error.

    Both raise DatabaseAway when the database cannot be reached, is locked, or is lost within the block.
    """

    def __init__(self, url: str) -> None:
        parsed = make_url(url)
        self.is_sqlite = parsed.get_backend_name() == "sqlite"
        self.file = parsed.database if self.is_sqlite and parsed.database != ":memory:" else None
        if self.is_sqlite:
            self.engine = engine_for(
                url,
                pool_timeout=WAIT_S,
                pool_use_lifo=True,
                pool_reset_on_return=None,
                connect_args={"timeout": WAIT_S},
            )
            event.listen(self.engine.sync_engine, "do_connect", lambda *_: make_file(parsed.database))
            event.listen(self.engine.sync_engine, "connect", prepare_sqlite)
            event.listen(self.engine.sync_engine, "begin", _begin_sqlite)
            event.listen(self.engine.sync_engine, "reset", _reset_sqlite)
        else:
            self.engine = engine_for(
                url,
                pool_size=10,
                pool_timeout=WAIT_S,
                connect_args={
                    "timeout": WAIT_S,
                    "command_timeout": 2 * WAIT_S,
                    "server_settings": _LIMITS,
                },
            )
            if is_pooled(self.engine):
                event.listen(self.engine.sync_engine, "begin", _limit_transaction)
            event.listen(self.engine.sync_engine, "checkin", _note_use)
            event.listen(self.engine.sync_engine, "checkout", _check_life(self.engine.sync_engine.dialect))
        self._reader = outside_transactions(self.engine)
        self.writer: AsyncEngine = self.engine.execution_options(**{_WRITES: True})
        self._writing = asyncio.Lock()

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncSession]:
        """Open a session for queries: one snapshot on SQLite, one for each statement on PostgreSQL."""
        with _database_away():
            async with AsyncSession(self._reader, expire_on_commit=False, autoflush=False) as session:
                yield session

    @asynccontextmanager
    async def fetching(self) -> AsyncIterator[Fetch]:
        """Open a connection for queries that cost less than those of `reading`: they return plain rows, no objects.

        On SQLite they share one snapshot.
        """
        with _database_away():
            if self.is_sqlite or is_pooled(self.engine):
                async with self._reader.connect() as connection:
                    yield _SlowFetch(connection)
                return
            held = await self.engine.raw_connection()
            try:
                yield _DriverFetch(held.driver_connection, self.engine.dialect)
            except BaseException as error:
                # A cancelled caller leaves a query running.
                if not isinstance(error, Exception):
                    held.invalidate(error)
                raise
            finally:
                await greenlet_spawn(held.close)

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[AsyncSession]:
        """Open a session that is committed when the block ends, or rolled back when it raises."""
        with _database_away():
            async with AsyncExitStack() as stack:
                if self.is_sqlite:
                    await asyncio.wait_for(stack.enter_async_context(self._writing), WAIT_S)
                session = await stack.enter_async_context(
                    AsyncSession(self.writer, expire_on_commit=False, autoflush=False)
                )
                yield session
                await session.commit()

    async def aclose(self) -> None:
        """Close all connections."""
        await self.engine.dispose()


class Fetch(Protocol):
    """Executes queries on one connection. Build statements once, and give their values by name."""

    async def __call__(self, statement: Select[*tuple[Any, ...]], **values: object) -> Sequence[Sequence[Any]]:
        """Return the rows, each with the columns in the statement's order. Raises DatabaseAway within `fetching`."""


class _SlowFetch:
    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def __call__(self, statement: Select[*tuple[Any, ...]], **values: object) -> Sequence[Sequence[Any]]:
        return (await self._connection.execute(statement, values)).all()


class _DriverFetch:
    """Bypasses SQLAlchemy, which costs more than a query. Compiles statements once, and converts values as it would."""

    def __init__(self, driver: Any, dialect: Dialect) -> None:
        self._driver = driver
        self._dialect = dialect

    async def __call__(self, statement: Select[*tuple[Any, ...]], **values: object) -> Sequence[Sequence[Any]]:
        sql, parameters, processors = _prepared(statement, self._dialect)
        given = [values[name] if bound is None else bound for name, bound in parameters]
        rows: Sequence[Sequence[Any]] = await self._driver.fetch(sql, *given)
        return [_processed(row, processors) for row in rows] if processors else rows


@lru_cache(maxsize=256)
def _prepared(statement: Any, dialect: Any) -> tuple[str, list[tuple[str, Any]], list[tuple[int, Any]]]:
    """Return a statement's text, its parameters with the values it has itself, and the columns to convert."""
    compiled = statement.compile(dialect=dialect, compile_kwargs={"render_postcompile": True})
    own = compiled.construct_params(_check=False)
    columns = enumerate(column.type for column in statement.selected_columns)
    processors = [(at, kind.dialect_impl(dialect).result_processor(dialect, None)) for at, kind in columns]
    return compiled.string, [(name, own[name]) for name in compiled.positiontup], [p for p in processors if p[1]]


def _processed(row: Sequence[Any], processors: Sequence[tuple[int, Any]]) -> list[Any]:
    values = list(row)
    for at, process in processors:
        values[at] = process(values[at])
    return values


class _database_away:  # noqa: N801 - reads as a statement
    """Turns any driver error that means the database is unavailable into DatabaseAway."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if error is not None and is_away(error):
            raise DatabaseAway("The database is unavailable.") from error


# 3D000: the database does not exist, because it is being restored.
_AWAY_STATES = ("08", "53", "57", "55P03", "40P01", "25P03", "3D000")


def is_away(error: BaseException) -> bool:
    """Return whether `error` means that the database is unavailable, rather than that the statement is wrong."""
    if isinstance(error, OperationalError | InterfaceError | PoolTimeout | ConnectionError | TimeoutError | OSError):
        return True
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return True
    told = error.orig if isinstance(error, DBAPIError) else error
    # asyncpg's own InterfaceError, which has no state: the connection was lost.
    is_lost = type(told).__name__ == "InterfaceError" and type(told).__module__.startswith("asyncpg")
    return is_lost or (getattr(told, "sqlstate", None) or "").startswith(_AWAY_STATES)


def prepare_sqlite(connection: Any, _record: object) -> None:
    """Set up a SQLite connection: write-ahead log, foreign keys, busy timeout, manual transactions.

    The log grows while a long read is open; once it is checkpointed it is truncated to `MAX_LOG_BYTES`.
    """
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in (
        "journal_mode=WAL",
        f"journal_size_limit={MAX_LOG_BYTES}",
        "synchronous=FULL",
        "foreign_keys=ON",
        "busy_timeout=5000",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Any) -> None:
    writes = connection.get_execution_options().get(_WRITES)
    begin(connection, "BEGIN IMMEDIATE" if writes else "BEGIN")


def _reset_sqlite(connection: Any, _entry: ConnectionPoolEntry, _state: object) -> None:
    """Roll back what is left of a transaction. A rollback without one is a round trip to the connection's thread."""
    if connection.driver_connection.in_transaction:
        connection.rollback()


def _limit_transaction(connection: Any) -> None:
    """Set limits that PgBouncer does not keep for a connection. Readers need none: they take no blocking locks."""
    if connection.get_execution_options().get(_WRITES):
        for name, limit in _LIMITS.items():
            connection.exec_driver_sql(f"SET LOCAL {name} = '{limit}'")


def _note_use(_connection: Any, entry: ConnectionPoolEntry) -> None:
    entry.info["used_at"] = time.monotonic()


def _check_life(dialect: Dialect) -> Any:
    def check(connection: Any, entry: ConnectionPoolEntry, _proxy: object) -> None:
        """Raise DisconnectionError for a dead connection; the pool then provides another."""
        # The driver notices a server that closes the connection, but not one that vanishes.
        is_dead = connection.driver_connection.is_closed()
        if not is_dead and time.monotonic() - entry.info.get("used_at", time.monotonic()) > RESTED_S:
            try:
                is_dead = not dialect.do_ping(connection)
            except dialect.loaded_dbapi.Error as error:
                if not dialect.is_disconnect(error, connection, None):
                    raise
                is_dead = True
        if is_dead:
            raise DisconnectionError

    return check
