"""Takes and restores backups."""

from __future__ import annotations

import asyncio
import datetime as dt
import sqlite3
import tempfile
from pathlib import Path

from sqlalchemy import make_url

from smartlink.portal import migrations
from smartlink.portal.backups import archive, ids, postgresql, sqlite
from smartlink.portal.backups.archive import FORMAT, BackupFailed, Manifest
from smartlink.portal.shared.settings import async_url

__all__ = ["backup", "restore"]


def backup(url: str, target: Path) -> tuple[Path, Manifest]:
    """Back up the database at `url`, which may be in use, to the new file `target`, or to one in that folder."""
    now = dt.datetime.now(dt.UTC)
    if target.is_dir():
        target = target / f"smartlink-{now:%Y%m%dT%H%M%SZ}.backup"
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        raise BackupFailed(f"{target} already exists. Give another name, or a folder.")
    parsed = make_url(async_url(url))
    with tempfile.TemporaryDirectory(prefix=".smartlink-backup-", dir=target.parent) as folder:
        data = Path(folder) / "database"
        if parsed.get_backend_name() == "sqlite":
            kind, server = "sqlite", sqlite3.sqlite_version
            sqlite.copy(_file(parsed.database), data)
            revision, last = sqlite.facts(data)
        else:
            kind = "postgresql"
            revision, last, server = asyncio.run(postgresql.copy(parsed, data))
        manifest = Manifest(FORMAT, kind, revision, now, last, server)
        return target, archive.write(target, data, manifest)


def restore(url: str, source: Path, *, force: bool = False) -> Manifest:
    """Replace the database at `url` with the backup `source`, completely or not at all.

    A database with data is only replaced with `force`. Ids continue from much higher values (see `ids`).
    """
    manifest = archive.read_manifest(source)
    parsed = make_url(async_url(url))
    kind = parsed.get_backend_name()
    if manifest.kind != kind:
        raise BackupFailed(f"The backup is of a {manifest.kind} database, but this one is {kind}.")
    if manifest.revision not in migrations.revisions():
        raise BackupFailed(
            f"The backup is at revision {manifest.revision}, which this version does not know. Use a newer version."
        )
    by = ids.jump(manifest.taken_at, dt.datetime.now(dt.UTC))
    refusal = BackupFailed("The database has data. Back it up, then repeat with --force to replace all of it.")
    if kind == "sqlite":
        database = _file(parsed.database)
        if not force and not sqlite.is_empty(database):
            raise refusal
        database.parent.mkdir(parents=True, exist_ok=True)
        # In the same folder, since a rename cannot cross file systems.
        with tempfile.TemporaryDirectory(prefix=".smartlink-restore-", dir=database.parent) as folder:
            data = Path(folder) / "database"
            archive.read(source, data)
            if sqlite.facts(data)[0] != manifest.revision:
                raise BackupFailed(f"{source} is damaged: its database is not at the revision in its manifest.")
            sqlite.make_ready(data, by)
            sqlite.replace(database, data)
        return manifest
    if not force and not asyncio.run(postgresql.is_empty(parsed)):
        raise refusal
    with tempfile.TemporaryDirectory(prefix="smartlink-restore-") as folder:
        data = Path(folder) / "database"
        archive.read(source, data)
        asyncio.run(postgresql.restore(parsed, data, revision=manifest.revision, by=by))
    return manifest


def _file(name: str | None) -> Path:
    if not name or name == ":memory:":
        raise BackupFailed("The database is in memory: there is no file to copy. Check DATABASE_URL.")
    return Path(name)
