"""SQLite backups: copied with the online backup API, restored by a rename."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from smartlink.portal.backups import ids
from smartlink.portal.backups.archive import BackupFailed

__all__ = ["copy", "facts", "is_empty", "make_ready", "replace"]

WAIT_S = 30.0


def copy(source: Path, target: Path) -> None:
    """Copy a snapshot of the database, without blocking writers."""
    if not source.is_file():
        raise BackupFailed(f"The database {source} does not exist. Check DATABASE_URL, or DB_DATABASE.")
    with _open(source) as reading, _open(target) as writing:
        # In one step: SQLite restarts a backup in several steps whenever another process writes in between.
        reading.backup(writing, pages=-1)
        writing.execute("PRAGMA journal_mode=DELETE")
    os.chmod(target, 0o600)  # noqa: PTH101 — it contains password hashes


def facts(database: Path) -> tuple[str, int]:
    """Return the revision and the last event id. Raises BackupFailed if the database is damaged or not ours."""
    with _open(database) as connection:
        try:
            problems = [str(row[0]) for row in connection.execute("PRAGMA integrity_check(1)")]
            if problems != ["ok"]:
                raise BackupFailed(f"The database is damaged: {problems[0][:200]}")
            revision = connection.execute("SELECT version_num FROM alembic_version").fetchone()
        except sqlite3.DatabaseError as error:
            raise BackupFailed(f"The database is damaged, or not the portal's: {error}") from None
        if revision is None:
            raise BackupFailed("The database has no revision: run `smartlink db upgrade` first.")
        counter = 0
        with contextlib.suppress(sqlite3.OperationalError):
            row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'recorded_events'").fetchone()
            counter = int(row[0]) if row else 0
        return str(revision[0]), counter


def is_empty(database: Path) -> bool:
    """Return whether the database is missing or has no tables. A damaged one is not empty."""
    if not database.is_file() or database.stat().st_size == 0:
        return True
    with _open(database) as connection:
        try:
            return connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone() is None
        except sqlite3.DatabaseError:
            return False


def make_ready(database: Path, by: int) -> None:
    """Raise the ids of a copy that is about to be restored."""
    with _open(database) as connection:
        connection.execute("BEGIN IMMEDIATE")
        ids.lift_sqlite(connection, by)
        connection.execute("COMMIT")


def replace(database: Path, by: Path) -> None:
    """Replace `database` with the file `by` in the same folder. Raises BackupFailed if it is in use."""
    with _held(database):
        by.replace(database)
        for ending in ("-wal", "-shm", "-journal"):
            database.with_name(database.name + ending).unlink(missing_ok=True)
        descriptor = os.open(database.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def _held(database: Path) -> Iterator[None]:
    """Hold the database exclusively within the block. Raises BackupFailed if another process has it open."""
    if not database.is_file() or database.stat().st_size == 0:
        yield
        return
    connection = sqlite3.connect(database, timeout=1, isolation_level=None)
    try:
        connection.execute("PRAGMA locking_mode=EXCLUSIVE")
        # SQLite leaves WAL mode only while no other process has the database open.
        connection.execute("PRAGMA journal_mode=DELETE")
        connection.execute("BEGIN EXCLUSIVE")
        connection.execute("COMMIT")
    except sqlite3.OperationalError:
        connection.close()
        raise BackupFailed(f"{database} is in use: stop `smartlink serve`, the app and the workers first.") from None
    except sqlite3.DatabaseError:
        pass  # It is damaged, which may be why it is being replaced.
    try:
        yield
    finally:
        connection.close()


@contextlib.contextmanager
def _open(database: Path) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(database, timeout=WAIT_S, isolation_level=None)
    try:
        yield connection
    finally:
        connection.close()
