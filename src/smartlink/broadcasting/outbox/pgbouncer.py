"""PostgreSQL behind PgBouncer in transaction mode: `?pgbouncer=true` in the database's address says so.

A server's connection is a client's for one transaction there. So statements are not prepared beyond one, nothing is
set when a connection starts, each statement stands in a transaction, and NOTIFY is not heard: workers sweep, or Redis
rings. Works with PgBouncer 1.18 and later, which need no `max_prepared_statements` for it.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import URL, make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

__all__ = ["engine_for", "is_pooled", "outside_transactions", "pooler_hint"]

_MARK = "smartlink_pgbouncer"
_NAME = "pgbouncer"
# What a pooler says to a startup parameter it does not know, and to statements prepared on another connection.
_SIGNS = ("unsupported startup parameter", "prepared statement")
_STATES = ("08P01", "26000", "42P05")


def is_pooled(of: AsyncEngine | URL | str) -> bool:
    """Whether an engine, or an address, says that PgBouncer stands before the database."""
    if isinstance(of, AsyncEngine):
        return bool(of.get_execution_options().get(_MARK))
    return str(make_url(of).query.get(_NAME, "")).lower() in ("true", "1", "yes", "on")


def engine_for(url: URL | str, **options: Any) -> AsyncEngine:
    """As SQLAlchemy's `create_async_engine`, for an address that may end in `?pgbouncer=true`, with asyncpg."""
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
    """An engine whose statements stand for themselves, outside of transactions, where that can be."""
    if engine.dialect.name == "sqlite" or is_pooled(engine):
        return engine
    return engine.execution_options(isolation_level="AUTOCOMMIT")


def pooler_hint(error: BaseException | None) -> str:
    """What to write when `error` is what PgBouncer says to those who do not know of it; else nothing."""
    said = getattr(error, "orig", None) if isinstance(error, DBAPIError) else error
    is_sign = getattr(said, "sqlstate", None) in _STATES and any(sign in str(said) for sign in _SIGNS)
    if not is_sign:
        return ""
    return (
        "this database is behind PgBouncer in transaction mode: say so with "
        "DB_PGBOUNCER=true, or ?pgbouncer=true in the database's address"
    )


def _in_a_transaction(setup: Any) -> Any:
    """What asks the server more than once has to ask the same one."""

    async def run(connection: Any) -> None:
        driver = connection._connection  # noqa: SLF001 - as SQLAlchemy's own set-up does
        async with driver.transaction():
            await setup(connection)

    return run
