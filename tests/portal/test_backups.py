"""Backups: consistent under load, verified, restored completely, and no id is reused afterwards."""

from __future__ import annotations

import asyncio
import datetime as dt
import os
import sqlite3
import stat
import tarfile
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from kit.portal import World
from kit.waiting import LIMIT_S
from smartlink.portal import migrations
from smartlink.portal.backups import BackupFailed, archive, backup, ids, postgresql, restore

NOW = dt.datetime(2025, 5, 1, tzinfo=dt.UTC)


def run(url: str, *statements: str) -> list[tuple[object, ...]]:
    """The rows of the last statement."""
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(url.partition(":///")[2], isolation_level=None)) as connection:
            for statement in statements:
                cursor = connection.execute(statement)
            return cursor.fetchall()
    with psycopg.connect(url, autocommit=True) as server:
        for statement in statements:
            found = server.execute(statement)  # type: ignore[call-overload]
        return found.fetchall() if found.description else []


def say(url: str, text: str) -> int:
    """Add a user, unless there is one, and what they say; its id."""
    now = "2025-05-01 10:00:00+00:00"
    columns = "(name, email, password, is_admin, created_at, updated_at)"
    run(
        url,
        f"INSERT INTO users {columns} SELECT 'Ana', 'ana@example.com', 'x', false, '{now}', '{now}'"
        " WHERE NOT EXISTS (SELECT 1 FROM users)",
        "INSERT INTO chat_messages (user_id, message, is_read, created_at, updated_at)"
        f" SELECT id, '{text}', false, '{now}', '{now}' FROM users",
        "INSERT INTO recorded_events (channel, name, payload, delivery, state, created_at)"
        f" VALUES ('chat', 'MessageSent', '{{}}', 'durable', 'sent', '{now}')",
    )
    return int(str(run(url, "SELECT max(id) FROM chat_messages")[0][0]))


def said(url: str) -> list[str]:
    return [str(row[0]) for row in run(url, "SELECT message FROM chat_messages ORDER BY id")]


@pytest.fixture
def elsewhere(database_url: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty database of the same kind."""
    if database_url.startswith("sqlite"):
        yield f"sqlite:///{tmp_path / 'elsewhere' / 'portal.db'}"
        return
    from kit.postgres import fresh_database

    with fresh_database(request.getfixturevalue("postgres_url")) as url:
        yield url


def test_a_restore_brings_everything_back(database_url: str, elsewhere: str, tmp_path: Path) -> None:
    for text in ("one", "two"):
        say(database_url, text)
    file, manifest = backup(database_url, tmp_path)
    say(database_url, "too late")

    restore(elsewhere, file)

    assert said(elsewhere) == ["one", "two"]
    assert manifest.last_event_id == 2
    assert migrations.current(elsewhere) == manifest.revision == migrations.HEAD
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == []


def test_a_backup_under_load_is_consistent(database_url: str, elsewhere: str, tmp_path: Path) -> None:
    say(database_url, "0")
    is_over = threading.Event()

    def go_on() -> None:
        number = 0
        while not is_over.is_set() and number < 2_000:
            number += 1
            say(database_url, str(number))

    writer = threading.Thread(target=go_on)
    writer.start()
    try:
        file, _ = backup(database_url, tmp_path / "under-load.backup")
    finally:
        is_over.set()
        writer.join(LIMIT_S)

    restore(elsewhere, file)

    kept = said(elsewhere)
    assert kept == [str(number) for number in range(len(kept))]
    assert 1 <= len(kept) <= len(said(database_url))


def test_no_id_is_reused_after_a_restore(database_url: str, tmp_path: Path) -> None:
    run(
        database_url,
        "INSERT INTO outbox_workers (id, host, pid, queues, started_at, seen_at) VALUES ('w', 'h', 1, '*', 1, 1)",
    )
    say(database_url, "kept")
    file, _ = backup(database_url, tmp_path)
    lost = say(database_url, "lost")

    restore(database_url, file, force=True)

    assert said(database_url) == ["kept"]
    assert say(database_url, "new") > lost + ids.LEAST_JUMP - 2
    event = int(str(run(database_url, "SELECT max(id) FROM recorded_events")[0][0]))
    [(pruned_through,)] = run(database_url, "SELECT pruned_through FROM outbox_watermark")
    assert event == int(str(pruned_through)) + 1
    assert event < 2**53
    # A table that had no rows counts on from above, too.
    assert run(database_url, "SELECT count(*) FROM outbox_workers") == [(0,)]
    run(
        database_url,
        "INSERT INTO wallets (user_id, currency, balance, version, created_at, updated_at)"
        " SELECT id, 'EUR', 0, 7, created_at, created_at FROM users",
    )
    assert int(str(run(database_url, "SELECT max(id) FROM wallets")[0][0])) > ids.LEAST_JUMP
    second, _ = backup(database_url, tmp_path / "second.backup")
    restore(database_url, second, force=True)
    assert run(database_url, "SELECT version FROM wallets") == [(7 + ids.VERSION_JUMP,)]


async def test_a_page_ahead_of_the_backup_is_told_to_reload(database_url: str, tmp_path: Path) -> None:
    world = World(database_url)
    ana = await world.person("Ana")
    await ana.post("/api/chat/messages", {"message": "kept"})
    file, _ = await asyncio.to_thread(backup, database_url, tmp_path)
    for number in range(3):
        await ana.post("/api/chat/messages", {"message": f"lost {number}"})
    seen = (await ana.get("/api/chat/messages")).headers["x-event-id"]
    token = ana.client.headers["authorization"]
    await world.aclose()
    await asyncio.to_thread(restore, database_url, file, force=True)

    world = World(database_url)
    client = world.client(authorization=token)
    asked = (await client.get(f"/api/events?channel=chat&after={seen}")).json()
    listed = await client.get("/api/chat/messages")
    await client.post("/api/chat/messages", json={"message": "new"})
    following = (await client.get(f"/api/events?channel=chat&after={listed.headers['x-event-id']}")).json()
    await world.aclose()

    assert asked == {"events": [], "complete": False}
    assert [message["message"] for message in listed.json()] == ["kept"]
    assert following["complete"] is True
    assert [event["data"]["message"]["message"] for event in following["events"]] == ["new"]


def test_a_database_with_data_is_not_replaced_without_force(database_url: str, tmp_path: Path) -> None:
    say(database_url, "precious")
    file, _ = backup(database_url, tmp_path)
    say(database_url, "more")

    with pytest.raises(BackupFailed, match="--force"):
        restore(database_url, file)

    assert said(database_url) == ["precious", "more"]


def test_a_failed_restore_changes_nothing(database_url: str, tmp_path: Path) -> None:
    say(database_url, "stays")
    file, manifest = backup(database_url, tmp_path / "good.backup")
    with tarfile.open(file) as tar:
        names = tar.getnames()
        data = tar.extractfile("database").read()  # type: ignore[union-attr]
    assert names == ["manifest.json", "database"]

    # Whole as a file, and yet no database of this revision.
    (tmp_path / "data").write_bytes(data)
    archive.write(
        tmp_path / "other.backup", tmp_path / "data", archive.msgspec.structs.replace(manifest, revision="0001")
    )
    with pytest.raises(BackupFailed, match="revision"):
        restore(database_url, tmp_path / "other.backup", force=True)
    (tmp_path / "data").write_bytes(data[: len(data) // 2])
    archive.write(tmp_path / "half.backup", tmp_path / "data", manifest)
    with pytest.raises(BackupFailed):
        restore(database_url, tmp_path / "half.backup", force=True)

    assert said(database_url) == ["stays"]


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda whole: whole[: len(whole) // 2], "damaged"),
        (lambda whole: whole[:3_000] + b"\xff" * 16 + whole[3_016:], "damaged"),
        (lambda whole: b"nonsense" * 100, "not a backup"),
        (lambda whole: b"", "not a backup"),
        (lambda whole: whole.replace(b'"format": 1', b'"format": 2'), "newer"),
        (lambda whole: whole.replace(b'"kind": "sqlite"', b'"kind": "oracle"'), "but this one is sqlite"),
        (lambda whole: whole.replace(b'"revision": "00', b'"revision": "99'), "does not know"),
        (lambda whole: whole.replace(b'"taken_at": "', b'"taken_at": 1, "'), "manifest"),
    ],
)
def test_a_modified_backup_is_refused(sqlite_template: str, tmp_path: Path, damage: object, told: str) -> None:
    file, _ = backup(f"sqlite:///{sqlite_template}", tmp_path / "taken.backup")
    (tmp_path / "damaged.backup").write_bytes(damage(file.read_bytes()))  # type: ignore[operator]

    with pytest.raises(BackupFailed, match=told):
        restore(f"sqlite:///{tmp_path / 'new.db'}", tmp_path / "damaged.backup")

    assert not (tmp_path / "new.db").exists()


def test_a_backup_through_pgbouncer_is_refused_with_advice(tmp_path: Path) -> None:
    with pytest.raises(BackupFailed, match="DB_PGBOUNCER=false and the direct address"):
        backup("postgresql://app@127.0.0.1:1/app?pgbouncer=true", tmp_path / "a.backup")


def test_an_existing_file_is_not_overwritten(sqlite_template: str, tmp_path: Path) -> None:
    (tmp_path / "taken.backup").write_text("mine")

    with pytest.raises(BackupFailed, match="already exists"):
        backup(f"sqlite:///{sqlite_template}", tmp_path / "taken.backup")

    assert (tmp_path / "taken.backup").read_text() == "mine"


def test_a_sqlite_database_in_use_is_not_replaced(sqlite_template: str, tmp_path: Path) -> None:
    file, _ = backup(f"sqlite:///{sqlite_template}", tmp_path)
    url = f"sqlite:///{tmp_path / 'used.db'}"
    restore(url, file)
    with closing(sqlite3.connect(tmp_path / "used.db")) as user:
        user.execute("PRAGMA journal_mode=WAL")
        user.execute("SELECT count(*) FROM users").fetchall()

        with pytest.raises(BackupFailed, match="in use"):
            restore(url, file, force=True)

    restore(url, file, force=True)
    assert [path.name for path in tmp_path.glob("used.db*")] == ["used.db"]


def test_a_damaged_sqlite_database_can_be_replaced(sqlite_template: str, tmp_path: Path) -> None:
    file, _ = backup(f"sqlite:///{sqlite_template}", tmp_path)
    (tmp_path / "broken.db").write_bytes(b"no database at all" * 1000)

    restore(f"sqlite:///{tmp_path / 'broken.db'}", file, force=True)

    assert migrations.current(f"sqlite:///{tmp_path / 'broken.db'}") == migrations.HEAD


@pytest.mark.parametrize(("age_s", "by"), [(0, 10**9), (-50, 10**9), (86_400, 10**9 + 864_000_000)])
def test_ids_advance_by_more_than_can_have_been_used(age_s: int, by: int) -> None:
    assert ids.jump(NOW - dt.timedelta(seconds=age_s), NOW) == by


@pytest.mark.parametrize(
    ("said_by_tool", "told"),
    [(None, "pg_dump is not installed"), ("pg_dump (PostgreSQL) 9.6.24", "is version 9, too old for a PostgreSQL")],
)
def test_missing_or_older_client_tools_are_reported(
    postgres_template: str,
    postgres_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    said_by_tool: str | None,
    told: str,
) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    if said_by_tool is not None:
        (tools / "pg_dump").write_text(f"#!/bin/sh\necho '{said_by_tool}'\n")
        (tools / "pg_dump").chmod(0o755)
    monkeypatch.setenv("PATH", str(tools))
    monkeypatch.setattr(postgresql, "_TOOLS", tools)

    with pytest.raises(BackupFailed, match=told):
        backup(f"{postgres_url.rpartition('/')[0]}/{postgres_template}", tmp_path / "x.backup")


def test_no_password_appears_on_a_command_line(
    postgres_template: str, postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tool that is called writes down how."""
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "pg_dump").write_text(
        f'#!/bin/sh\n[ "$1" = --version ] && echo "pg_dump (PostgreSQL) 99.1" && exit\n'
        f'echo "$0 $@" > {tmp_path}/line; echo "$PGPASSWORD" > {tmp_path}/password; echo "pg_dump: error: no" >&2; exit 1\n'
    )
    (tools / "pg_dump").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    monkeypatch.setattr(postgresql, "_TOOLS", tools)
    url = f"{postgres_url.rpartition('/')[0]}/{postgres_template}".replace("postgres@", "postgres:s3cret%2F@")

    with pytest.raises(BackupFailed, match=r"pg_dump failed: no\. Nothing was changed"):
        backup(url, tmp_path / "x.backup")

    assert "s3cret" not in (tmp_path / "line").read_text()
    assert (tmp_path / "password").read_text() == "s3cret/\n"
