"""Migrations of the portal's database.

The scripts are in `versions`. On SQLite they run on the standard library's driver, each run in one transaction.
"""

from __future__ import annotations

import asyncio
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, create_engine, event, make_url, text
from sqlalchemy.pool import NullPool

from smartlink.broadcasting.outbox.pgbouncer import engine_for
from smartlink.portal.shared.db import MAX_LOG_BYTES, make_file
from smartlink.portal.shared.settings import async_url

__all__ = ["HEAD", "current", "downgrade", "revisions", "upgrade"]

HEAD = "0016"
_LOCK = 5_127_004_918
"""The PostgreSQL advisory lock that makes concurrent migrations run one after the other."""


def current(url: str) -> str | None:
    """Return the database's revision, or None. Cheap on SQLite, as it is read at every start."""
    parsed = make_url(async_url(url))
    if parsed.get_backend_name() == "sqlite":
        path = Path(parsed.database or "")
        if not path.is_file():
            return None
        connection = sqlite3.connect(path, timeout=5)
        try:
            row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
        except sqlite3.OperationalError:
            return None
        finally:
            connection.close()
        return None if row is None else str(row[0])
    found: list[str | None] = []
    _on_postgresql(url, lambda connection: found.append(_revision(connection)))
    return found[0]


def revisions() -> frozenset[str]:
    """Return all revisions that this version knows."""
    return frozenset(script.name[:4] for script in (Path(__file__).parent / "versions").glob("[0-9]*.py"))


def upgrade(url: str, revision: str = "head") -> None:
    """Upgrade the database to `revision`."""
    if revision == "head" and current(url) == HEAD:
        return
    _run(url, "upgrade", revision)


def downgrade(url: str, revision: str) -> None:
    """Downgrade the database to `revision` or `base`. Deletes direct messages before the column that marks them."""
    _run(url, "downgrade", revision)


def _run(url: str, command: str, revision: str) -> None:
    from alembic import command as commands
    from alembic.config import Config

    def migrate(connection: Connection) -> None:
        config = Config()
        config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
        config.attributes["connection"] = connection
        getattr(commands, command)(config, revision)

    if make_url(async_url(url)).get_backend_name() == "sqlite":
        _on_sqlite(url, migrate)
    else:
        _on_postgresql(url, lambda connection: _locked(connection, migrate))


def _on_sqlite(url: str, work: Any) -> None:
    parsed = make_url(async_url(url)).set(drivername="sqlite")
    make_file(parsed.database)
    engine = create_engine(parsed, poolclass=NullPool)
    event.listen(engine, "connect", _own_transactions)
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
    with engine.begin() as connection:
        work(connection)
    engine.dispose()


def _own_transactions(connection: Any, _record: object) -> None:
    connection.isolation_level = None
    connection.execute("PRAGMA busy_timeout=30000")
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute(f"PRAGMA journal_size_limit={MAX_LOG_BYTES}")


def _on_postgresql(url: str, work: Any) -> None:
    async def main() -> None:
        engine = engine_for(async_url(url), poolclass=NullPool, connect_args={"timeout": 10})
        try:
            async with engine.begin() as connection:
                await connection.run_sync(work)
        finally:
            await engine.dispose()

    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, main()).result()


def _locked(connection: Connection, work: Any) -> None:
    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
    work(connection)


def _revision(connection: Connection) -> str | None:
    if connection.scalar(text("SELECT to_regclass('alembic_version')")) is None:
        return None
    revision = connection.scalar(text("SELECT version_num FROM alembic_version"))
    return None if revision is None else str(revision)
