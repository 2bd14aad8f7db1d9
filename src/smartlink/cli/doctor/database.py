"""Checks the portal's database: reachable, at this version's revision, with a clock that agrees with ours."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from sqlalchemy import make_url, text
from sqlalchemy.exc import SQLAlchemyError

from smartlink.background import Background
from smartlink.broadcasting.outbox import read_status
from smartlink.broadcasting.outbox.pgbouncer import is_pooled, pooler_hint
from smartlink.cli.doctor.clock import compare
from smartlink.cli.doctor.finding import Finding, failed, fine, skipped, warning
from smartlink.cli.wording import waiting
from smartlink.portal import migrations
from smartlink.portal.shared.db import Database, outbox_tables
from smartlink.portal.shared.errors import DatabaseAway
from smartlink.portal.shared.health import DatabaseHealth
from smartlink.portal.shared.settings import PortalSettings

__all__ = ["check_database"]

TIMEOUT_S = 10.0


async def check_database(settings: PortalSettings) -> list[Finding]:
    """Check that the database is reachable and at our revision, its clock agrees, and a worker is running."""
    where = "DATABASE_URL, or the DB_ settings"
    try:
        revision = await asyncio.wait_for(asyncio.to_thread(migrations.current, settings.url), TIMEOUT_S)
    except (SQLAlchemyError, OSError, TimeoutError) as error:
        reason = type(getattr(error, "orig", None) or error).__name__
        return [failed("database", f"unavailable ({reason})", pooler_hint(error) or f"start it; check {where}")]
    if revision is None:
        return [failed("database", "it has no tables", "smartlink db upgrade")]
    if revision not in migrations.revisions():
        said = f"it is at revision {revision}, which this version does not know"
        return [failed("database", said, "install the version that made this database, or a newer one")]
    if revision != migrations.HEAD:
        said = f"it is at revision {revision}, this version needs {migrations.HEAD}"
        return [failed("database", said, "smartlink db upgrade")]
    database = Database(settings.url)
    kind = "SQLite" if database.is_sqlite else "PostgreSQL"
    kind += " behind PgBouncer" if is_pooled(database.engine) else ""
    try:
        async with asyncio.timeout(TIMEOUT_S):
            clock = await _clock(database)  # the first query: a pooler in the wrong mode refuses it
            if (problem := await _unwritable(database)) is not None:
                return [problem]
            found = [fine("database", f"{kind}, revision {revision}"), clock, *await _worker(database)]
            return [*found, *_files(settings)]
    except (DatabaseAway, SQLAlchemyError, TimeoutError) as error:
        fix = pooler_hint(error.__cause__ or error) or f"check {where}"
        return [failed("database", f"does not answer ({type(error).__name__})", fix)]
    finally:
        await database.aclose()


async def _unwritable(database: Database) -> Finding | None:
    """Say why the database accepts no writes: a lock, a full disk. It may still answer queries."""
    try:
        await DatabaseHealth(database, Background()).check()
    except DatabaseAway as error:
        fix = "free disk space, or end the program that holds a lock: see docs/howto/runbook.md"
        return failed("database", error.message, fix)
    return None


def _files(settings: PortalSettings) -> list[Finding]:
    """Warn of a SQLite file that other users can read: early versions did not restrict its permissions."""
    name = make_url(settings.url).database or ""
    if not settings.url.startswith("sqlite") or not Path(name).is_file() or not Path(name).stat().st_mode & 0o077:
        return []
    said = "readable by other users of this machine, password hashes and messages included"
    return [warning("database file", said, f"chmod 600 {name}*")]


async def _clock(database: Database) -> Finding:
    if database.is_sqlite:
        return skipped("clock", "the database uses this machine's")
    async with database.reading() as session:
        before = time.time()
        there = await session.scalar(text("SELECT extract(epoch FROM clock_timestamp())"))
    return compare("the database", float(there or 0) - before)


async def _worker(database: Database) -> list[Finding]:
    found = await read_status(database.engine, outbox_tables)
    listed = [fine("worker", f"running, {waiting(found.waiting)}")]
    if not found.has_worker:
        said = f"none is running, {waiting(found.waiting)}"
        listed = [warning("worker", said, "smartlink worker start, or smartlink serve")]
    if found.failed:
        fix = "smartlink failed list shows why; then smartlink failed retry all, or smartlink failed forget all"
        listed.append(warning("failed events", f"{found.failed} set aside, not sent", fix))
    return listed
