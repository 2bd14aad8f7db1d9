"""SQLite's files are readable by their user only, and do not grow without need."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from smartlink.cli.doctor.database import _files
from smartlink.portal import migrations
from smartlink.portal.backups import backup, restore
from smartlink.portal.shared.db import MAX_LOG_BYTES, Database
from smartlink.portal.shared.settings import PortalSettings
from smartlink.server.webhooks.sqlite import SqliteQueue


@pytest.fixture(autouse=True)
def usual_umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


def modes(folder: Path) -> dict[str, str]:
    return {path.name: oct(path.stat().st_mode & 0o777) for path in folder.rglob("*") if path.is_file()}


async def test_only_their_user_can_read_the_database_files(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/portal/smartlink.db"
    migrations.upgrade(url)
    database = Database(url.replace("sqlite:", "sqlite+aiosqlite:"))
    queue = SqliteQueue(tmp_path / "queue" / "webhooks.db")
    await queue.start()
    async with database.writing() as session:
        await session.execute(text("DELETE FROM users"))

        found = modes(tmp_path)

    assert {"smartlink.db", "smartlink.db-wal", "smartlink.db-shm", "webhooks.db", "webhooks.db-wal"} <= set(found)
    assert set(found.values()) == {"0o600"}
    await database.aclose()
    await queue.stop()


def test_only_their_user_can_read_backups_and_restored_files(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/smartlink.db"
    migrations.upgrade(url)
    taken, _ = backup(url, tmp_path / "copy.backup")
    restore(f"sqlite:///{tmp_path}/restored/smartlink.db", taken)

    assert set(modes(tmp_path).values()) == {"0o600"}


async def test_the_log_shrinks_after_a_long_reader(tmp_path: Path) -> None:
    path = tmp_path / "portal.db"
    database = Database(f"sqlite+aiosqlite:///{path}")
    log = path.with_name("portal.db-wal")

    async def write(size: int) -> None:
        async with database.writing() as session:
            await session.execute(text("INSERT INTO kept VALUES (zeroblob(:size))"), {"size": size})

    async with database.writing() as session:
        await session.execute(text("CREATE TABLE kept (data BLOB)"))
    reader = sqlite3.connect(path, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM kept").fetchone()
    await write(2 * MAX_LOG_BYTES)
    grown = log.stat().st_size
    reader.close()

    await write(4096)
    await write(4096)

    assert grown > 2 * MAX_LOG_BYTES
    assert log.stat().st_size <= MAX_LOG_BYTES
    await database.aclose()


@pytest.mark.parametrize(("mode", "told"), [(0o644, ["warning"]), (0o600, [])])
def test_doctor_reports_an_older_database_that_others_can_read(tmp_path: Path, mode: int, told: list[str]) -> None:
    url = f"sqlite:///{tmp_path}/smartlink.db"
    migrations.upgrade(url)
    (tmp_path / "smartlink.db").chmod(mode)

    found = _files(PortalSettings(_env_file=None, database_url=url))

    assert [finding.state.value for finding in found] == told
