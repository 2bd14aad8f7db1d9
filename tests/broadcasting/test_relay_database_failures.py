"""A relay whose database fails or is locked: it goes on, and stopping takes bounded time."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from broadcasting.outbox_database import (
    OutboxDatabase,
    envelope,
    open_database,
    relaying,
)
from kit.waiting import LIMIT_S, eventually
from smartlink.broadcasting.testing import FakeDriver


async def test_the_relay_survives_database_failures(database: OutboxDatabase, caplog: pytest.LogCaptureFixture) -> None:
    driver = FakeDriver()
    async with relaying(database, driver):
        await database.record(envelope(1))
        await eventually(lambda: driver.sent)
        await _rename(database, "recorded_events", "gone")
        database.outbox.wake()
        await eventually(lambda: "the database failed" in caplog.text)
        await _rename(database, "gone", "recorded_events")
        await database.record(envelope(2))
        await eventually(lambda: len(driver.sent) == 2)


async def _rename(database: OutboxDatabase, old: str, new: str) -> None:
    async with database.engine.begin() as connection:
        await connection.execute(text(f"ALTER TABLE {old} RENAME TO {new}"))


async def test_stopping_takes_bounded_time_even_if_the_database_is_locked(postgresql: OutboxDatabase) -> None:
    driver = FakeDriver()
    relay = postgresql.relay(driver)
    stop = asyncio.Event()
    running = asyncio.create_task(relay.run(stop))
    await postgresql.record(envelope(1))
    await eventually(lambda: driver.sent)

    async with postgresql.engine.begin() as locker:
        await locker.execute(text("LOCK TABLE outbox_lease, recorded_events, outbox_workers IN ACCESS EXCLUSIVE MODE"))
        postgresql.outbox.wake()
        await _until_somebody_waits_for_a_table(locker)
        stop.set()
        await asyncio.wait_for(running, LIMIT_S)


def test_a_program_exits_while_another_process_locks_its_sqlite_database(tmp_path: Path) -> None:
    held = contextlib.closing(sqlite3.connect(tmp_path / "outbox.db", isolation_level=None, check_same_thread=False))

    async def program(locker: sqlite3.Connection) -> None:
        async with open_database(f"sqlite+aiosqlite:///{tmp_path / 'outbox.db'}") as database:
            driver = FakeDriver()
            stop = asyncio.Event()
            running = asyncio.create_task(database.relay(driver).run(stop))
            await database.record(envelope(1))
            await eventually(lambda: driver.sent)
            # The loop goes on meanwhile: the relay may have to write first.
            await asyncio.to_thread(locker.execute, "BEGIN IMMEDIATE")
            stop.set()
            await asyncio.wait_for(running, LIMIT_S)

    with held as locker:
        # In a thread: what it is about is whether the loop can be closed.
        thread = threading.Thread(target=lambda: asyncio.run(program(locker)), daemon=True)
        thread.start()
        thread.join(LIMIT_S)

        assert not thread.is_alive()


async def test_a_cancelled_write_leaves_no_lock(tmp_path: Path) -> None:
    async with open_database(f"sqlite+aiosqlite:///{tmp_path / 'outbox.db'}") as database:
        for moment in range(60):
            stop = asyncio.Event()
            running = asyncio.create_task(database.relay(FakeDriver()).run(stop))
            await asyncio.sleep(moment * 0.0003)
            stop.set()
            await running

            with contextlib.closing(sqlite3.connect(tmp_path / "outbox.db", timeout=0.2)) as other:
                other.execute("UPDATE outbox_lease SET expires_at = 0")
                other.commit()


async def _until_somebody_waits_for_a_table(connection: AsyncConnection) -> None:
    waiting = text("SELECT count(*) FROM pg_locks WHERE locktype = 'relation' AND NOT granted")
    async with asyncio.timeout(LIMIT_S):
        while not await connection.scalar(waiting):
            await asyncio.sleep(0.003)
