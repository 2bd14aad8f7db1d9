"""SQLite: copied with its online backup API, put back by a rename."""

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
    """Copy the database as it is at one moment; those who write meanwhile are not held up."""
    if not source.is_file():
        raise BackupFailed(f"The database {source} is not there. Check DATABASE_URL, or DB_DATABASE.")
    with _open(source) as reading, _open(target) as writing:
        # In one step: in several it would begin anew whenever another process has written between two of them.
        reading.backup(writing, pages=-1)
        writing.execute("PRAGMA journal_mode=DELETE")
    os.chmod(target, 0o600)  # noqa: PTH101 — it holds password hashes


def facts(database: Path) -> tuple[str, int]:
    """The revision, and the last event id. Raises BackupFailed for a database that is damaged or not ours."""
    with _open(database) as connection:
        try:
            problems = [str(row[0]) for row in connection.execute("PRAGMA integrity_check(1)")]
            if problems != ["ok"]:
                raise BackupFailed(f"The database is damaged: {problems[0][:200]}")
            revision = connection.execute("SELECT version_num FROM alembic_version").fetchone()
        except sqlite3.DatabaseError as error:
            raise BackupFailed(f"This is no database of ours, or damaged: {error}") from None
        if revision is None:
            raise BackupFailed("The database has no revision: run `smartlink db upgrade` first.")
        counter = 0
        with contextlib.suppress(sqlite3.OperationalError):
            row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'recorded_events'").fetchone()
            counter = int(row[0]) if row else 0
        return str(revision[0]), counter


def is_empty(database: Path) -> bool:
    """Whether there is nothing to lose."""
    if not database.is_file() or database.stat().st_size == 0:
        return True
    with _open(database) as connection:
        try:
            return connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone() is None
        except sqlite3.DatabaseError:
            return False


def make_ready(database: Path, by: int) -> None:
    """Lift the ids of a copy that is about to be put back."""
    with _open(database) as connection:
        connection.execute("BEGIN IMMEDIATE")
        ids.lift_sqlite(connection, by)
        connection.execute("COMMIT")


def replace(database: Path, by: Path) -> None:
    """Put the file `by`, in the same folder, in the place of `database`. Raises BackupFailed while that is in use."""
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
    """Nobody else has the database open, or may open it, within the block."""
    if not database.is_file() or database.stat().st_size == 0:
        yield
        return
    connection = sqlite3.connect(database, timeout=1, isolation_level=None)
    try:
        connection.execute("PRAGMA locking_mode=EXCLUSIVE")
        # A database leaves its write-ahead log only while nobody else has it open.
        connection.execute("PRAGMA journal_mode=DELETE")
        connection.execute("BEGIN EXCLUSIVE")
        connection.execute("COMMIT")
    except sqlite3.OperationalError:
        connection.close()
        raise BackupFailed(f"{database} is in use: stop `smartlink serve`, app and workers first.") from None
    except sqlite3.DatabaseError:
        pass  # What is there is damaged; it may well be why it is replaced.
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
