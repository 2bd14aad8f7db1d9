"""`smartlink db backup` and `smartlink db restore`."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from smartlink.cli.failures import fail
from smartlink.cli.portal import settings_with_database

__all__ = ["register"]


def register(group: typer.Typer) -> None:
    """Add the commands to the `db` group."""
    group.command()(backup)
    group.command()(restore)


def backup(
    target: Annotated[str, typer.Argument(metavar="FILE|DIR/", help="A new file, or a folder to create one in.")],
) -> None:
    """Back up the database while everything runs. Keep the file as safe as the database itself."""
    from smartlink.portal.backups import backup as take

    url = settings_with_database().url
    with _failures():
        if target.endswith("/"):
            Path(target).mkdir(mode=0o700, parents=True, exist_ok=True)
        file, manifest = take(url, Path(target))
    _say(f"{file}  revision {manifest.revision}  {manifest.bytes} bytes  sha256 {manifest.sha256}")


def restore(
    source: Annotated[Path, typer.Argument(metavar="FILE", help="A file made by `smartlink db backup`.")],
    force: Annotated[bool, typer.Option("--force", help="Replace a database that holds data.")] = False,
) -> None:
    """Replace the database with a backup, completely or not at all. Stop the app and the workers first."""
    from smartlink.portal import migrations
    from smartlink.portal.backups import restore as bring_back

    url = settings_with_database().url
    with _failures():
        manifest = bring_back(url, source, force=force)
    _say(f"Restored the backup of {manifest.taken_at:%Y-%m-%d %H:%M:%S} UTC, revision {manifest.revision}")
    if manifest.revision != migrations.HEAD:
        _say("It comes from an older version. Now run: smartlink db upgrade")


@contextlib.contextmanager
def _failures() -> Iterator[None]:
    from smartlink.portal.backups import BackupFailed

    try:
        yield
    except BackupFailed as error:
        fail(str(error))
    except sqlite3.Error as error:
        fail(f"SQLite: {error}")
    except OSError as error:
        fail(f"{error.filename or 'The file'}: {error.strerror or error}")


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 — this is the command line
