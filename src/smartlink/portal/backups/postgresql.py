"""PostgreSQL backups, by its own client tools. They get the address and the password through the environment."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import asyncpg
from sqlalchemy import URL

from smartlink.broadcasting.outbox.pgbouncer import is_pooled
from smartlink.portal.backups import ids
from smartlink.portal.backups.archive import BackupFailed

__all__ = ["copy", "is_empty", "restore"]

CONNECT_S = 10.0
_TOOLS = Path("/usr/lib/postgresql")
_SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_THINGS = """SELECT c.relname, c.relkind FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE n.nspname = 'public' AND c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f')
    AND NOT EXISTS (SELECT 1 FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid
      AND d.deptype IN ('e', 'a', 'i'))"""
_DROP = f"""SET lock_timeout = '10s';
DO $$
DECLARE thing record;
BEGIN
  FOR thing IN {_THINGS} LOOP
    EXECUTE format('DROP %s IF EXISTS public.%I CASCADE', CASE thing.relkind WHEN 'v' THEN 'VIEW'
      WHEN 'm' THEN 'MATERIALIZED VIEW' WHEN 'S' THEN 'SEQUENCE' WHEN 'f' THEN 'FOREIGN TABLE' ELSE 'TABLE' END,
      thing.relname);
  END LOOP;
END $$;
"""


async def copy(url: URL, target: Path) -> tuple[str, int, str]:
    """Copy a snapshot of the database. Returns its revision, last event id, and the server's version."""
    connection = await _connect(url)
    try:
        version = await connection.fetchval("SHOW server_version_num")
        tool = await _tool("pg_dump", int(version) // 10_000)
        await connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        await connection.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
        snapshot = await connection.fetchval("SELECT pg_export_snapshot()")
        try:
            revision = await connection.fetchval("SELECT version_num FROM public.alembic_version")
        except asyncpg.UndefinedTableError:
            revision = None
        if revision is None:
            raise BackupFailed("The database has no revision: run `smartlink db upgrade` first.")
        last = await _last_event_id(connection)
        # Uses the same snapshot, so that the manifest matches the copy.
        await _run(
            [tool, "--format=custom", "--no-owner", "--no-privileges", "--no-comments", "--lock-wait-timeout=10s",
             f"--snapshot={snapshot}", f"--file={target}"],
            url,
        )  # fmt: skip
        return str(revision), last, str(version)
    finally:
        await connection.close(timeout=CONNECT_S)


async def is_empty(url: URL) -> bool:
    """Whether there is nothing to lose."""
    connection = await _connect(url)
    try:
        return not await connection.fetch(f"{_THINGS} LIMIT 1")
    finally:
        await connection.close(timeout=CONNECT_S)


async def restore(url: URL, data: Path, *, revision: str, by: int) -> None:
    """Replace whatever is in the database by the copy, ids lifted, in one transaction. Raises BackupFailed."""
    connection = await _connect(url)
    try:
        major = int(await connection.fetchval("SHOW server_version_num")) // 10_000
    finally:
        await connection.close(timeout=CONNECT_S)
    tool, psql = await _tool("pg_restore", major), await _tool("psql", major)
    before, script, after = (data.with_name(f"{name}.sql") for name in ("before", "script", "after"))
    # As a script: it is read to its end before anything is touched, and runs in the transaction that the rest is in.
    await _run([tool, "--no-owner", "--no-privileges", "--no-comments", f"--file={script}", str(data)], url)
    before.write_text(_DROP)
    after.write_text(_check(revision) + ids.lift_postgresql(by))
    await _run(
        [psql, "--no-psqlrc", "--quiet", "--output=/dev/null", "--set=ON_ERROR_STOP=1", "--single-transaction",
         f"--file={before}", f"--file={script}", f"--file={after}"],
        url,
    )  # fmt: skip


def _check(revision: str) -> str:
    return _REVISION_MUST_BE.replace("<REVISION>", revision)


_REVISION_MUST_BE = """DO $$
BEGIN
  IF (SELECT version_num FROM public.alembic_version) IS DISTINCT FROM '<REVISION>' THEN
    RAISE EXCEPTION 'the copy is not at the revision in its manifest';
  END IF;
END $$;
"""


async def _last_event_id(connection: Any) -> int:
    if await connection.fetchval("SELECT to_regclass('public.recorded_events')") is None:
        return 0
    return int(await connection.fetchval("SELECT coalesce(max(id), 0) FROM public.recorded_events"))


async def _connect(url: URL) -> Any:
    if is_pooled(url):
        raise BackupFailed(
            "A backup needs one connection throughout, which PgBouncer does not provide. Run this command with "
            "DB_PGBOUNCER=false and the direct address of PostgreSQL in DATABASE_URL."
        )
    mode = _ssl_mode(url)
    try:
        return await asyncpg.connect(
            host=url.host,
            port=url.port or 5432,
            user=url.username,
            password=url.password,
            database=url.database,
            timeout=CONNECT_S,
            **({} if mode is None else {"ssl": mode}),
        )
    except asyncpg.InvalidCatalogNameError:
        raise BackupFailed(
            f"The database {url.database} does not exist. Create it first: createdb {url.database}"
        ) from None
    except (asyncpg.PostgresError, OSError, TimeoutError) as error:
        raise BackupFailed(
            f"PostgreSQL at {url.host}:{url.port or 5432} cannot be used ({type(error).__name__}). "
            "Check DATABASE_URL, or the DB_ settings."
        ) from None


def _ssl_mode(url: URL) -> str | None:
    mode = url.query.get("ssl") or url.query.get("sslmode")
    return mode if isinstance(mode, str) and mode in _SSL_MODES else None


async def _tool(name: str, server: int) -> str:
    """Return the client tool of the server's major version, or else of the newest installed one.

    Raises BackupFailed if none is installed, or all are older than the server.
    """
    found: dict[int, str] = {}
    for candidate in _candidates(name):
        if (major := await _major(candidate)) is not None:
            found.setdefault(major, candidate)
    wanted = f"postgresql-client-{server}"
    if not found:
        raise BackupFailed(f"{name} is not installed. Install PostgreSQL's client tools: apt-get install {wanted}")
    best = server if server in found else max(found)
    if best < server:
        raise BackupFailed(
            f"{name} is version {best}, too old for a PostgreSQL {server} server. Install: apt-get install {wanted}"
        )
    return found[best]


def _candidates(name: str) -> list[str]:
    """Return where the tool may be. Debian installs several versions side by side, in their own folders."""
    first = shutil.which(name)
    return [*([] if first is None else [first]), *map(str, _TOOLS.glob(f"*/bin/{name}"))]


async def _major(tool: str) -> int | None:
    process = await asyncio.create_subprocess_exec(
        tool, "--version", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    said, _ = await asyncio.wait_for(process.communicate(), CONNECT_S)
    match = re.search(rb"\s(\d+)", said)
    return int(match[1]) if process.returncode == 0 and match else None


async def _run(command: Sequence[str], url: URL) -> None:
    """Run a tool against the database. Raises BackupFailed with its first error, and never with data."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    where = {
        "PGHOST": url.host or "127.0.0.1",
        "PGPORT": str(url.port or 5432),
        "PGUSER": url.username or "",
        "PGDATABASE": url.database or "",
        "PGPASSWORD": url.password or "",
        "PGSSLMODE": _ssl_mode(url) or "prefer",
        "PGCONNECT_TIMEOUT": str(int(CONNECT_S)),
        "PGAPPNAME": "smartlink",
    }
    process = await asyncio.create_subprocess_exec(
        *command,
        env=kept | {name: value for name, value in where.items() if value} | {"LC_MESSAGES": "C"},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        _, said = await process.communicate()
    except BaseException:
        process.kill()
        await process.wait()
        raise
    if process.returncode != 0:
        lines = said.decode("utf-8", "replace").splitlines()
        first = next((line for line in lines if "error:" in line.lower()), lines[0] if lines else "no reason given")
        reason = re.sub(r"^.*?(error|ERROR): +", "", first)[:200]
        raise BackupFailed(f"{Path(command[0]).name} failed: {reason}. Nothing was changed.")
