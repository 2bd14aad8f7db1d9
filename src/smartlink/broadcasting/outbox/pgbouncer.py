"""Support for PostgreSQL behind PgBouncer in transaction mode, marked with `?pgbouncer=true` in the database's URL.

There, a client has a server connection for one transaction only. So statements are not kept prepared, nothing is set
when a connection starts, each statement is in a transaction, and NOTIFY is not received: workers sweep, or are woken
through Redis. Works with PgBouncer 1.18 and later, without `max_prepared_statements`.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import URL, make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

__all__ = ["engine_for", "is_pooled", "outside_transactions", "pooler_hint"]

_MARK = "smartlink_pgbouncer"
_NAME = "pgbouncer"
# A pooler's errors for an unknown startup parameter, and for statements prepared on another connection.
_SIGNS = ("unsupported startup parameter", "prepared statement")
_STATES = ("08P01", "26000", "42P05")


def is_pooled(of: AsyncEngine | URL | str) -> bool:
    """Return whether an engine or a URL is marked as behind PgBouncer."""
    if isinstance(of, AsyncEngine):
        return bool(of.get_execution_options().get(_MARK))
    return str(make_url(of).query.get(_NAME, "")).lower() in ("true", "1", "yes", "on")


def engine_for(url: URL | str, **options: Any) -> AsyncEngine:
    """Create an engine like SQLAlchemy's `create_async_engine`; for asyncpg, the URL may have `?pgbouncer=true`."""
    pooled, url = is_pooled(url), make_url(url).difference_update_query([_NAME])
    if not pooled:
        return create_async_engine(url, **options)
    arguments = {key: value for key, value in options.pop("connect_args", {}).items() if key != "server_settings"}
    arguments |= {
        "statement_cache_size": 0,
        "prepared_statement_cache_size": 0,
        "prepared_statement_name_func": lambda: "",
    }
    execution = options.pop("execution_options", {}) | {_MARK: True}
    engine = create_async_engine(url, connect_args=arguments, execution_options=execution, **options)
    dialect: Any = engine.dialect
    for name in ("setup_asyncpg_json_codec", "setup_asyncpg_jsonb_codec"):
        setattr(dialect, name, _in_a_transaction(getattr(dialect, name)))
    return engine


def outside_transactions(engine: AsyncEngine) -> AsyncEngine:
    """Return an engine in autocommit mode, or `engine` itself where that is not supported."""
    if engine.dialect.name == "sqlite" or is_pooled(engine):
        return engine
    return engine.execution_options(isolation_level="AUTOCOMMIT")


def pooler_hint(error: BaseException | None) -> str:
    """Return what to change if `error` is typical of PgBouncer without our support, else an empty text."""
    said = getattr(error, "orig", None) if isinstance(error, DBAPIError) else error
    is_sign = getattr(said, "sqlstate", None) in _STATES and any(sign in str(said) for sign in _SIGNS)
    if not is_sign:
        return ""
    return (
        "this database is behind PgBouncer in transaction mode: set "
        "DB_PGBOUNCER=true, or add ?pgbouncer=true to the database's URL"
    )


def _in_a_transaction(setup: Any) -> Any:
    """Wrap a set-up function with several queries in a transaction, so that they reach the same server."""

    async def run(connection: Any) -> None:
        driver = connection._connection  # noqa: SLF001 - as SQLAlchemy's own set-up does
        async with driver.transaction():
            await setup(connection)

    return run
