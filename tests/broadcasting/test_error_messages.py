"""Errors at startup name the cause and the remedy."""

from __future__ import annotations

import asyncio
import logging
import sys
from pathlib import Path

import pytest
from sqlalchemy import create_engine
from sqlalchemy.exc import DBAPIError, OperationalError, ProgrammingError
from sqlalchemy.orm import Session

from broadcasting.outbox_database import OutboxDatabase, envelope, open_engine
from kit import processes
from kit.waiting import eventually
from smartlink.broadcasting.outbox import Outbox
from smartlink.broadcasting.testing import FakeDriver

WITHOUT = """
import importlib.util, runpy, sys
real = importlib.util.find_spec
importlib.util.find_spec = lambda name, *more: None if name == {missing!r} else real(name, *more)
import {module}
"""
WITHOUT_TYPER = """
import sys
sys.modules["typer"] = None
sys.argv = ["smartlink", *{arguments!r}]
from smartlink.cli.entry import main
main()
"""


async def test_the_error_for_a_wrong_recording_method_names_the_right_one(database: OutboxDatabase) -> None:
    async with database.sessions() as session:
        with pytest.raises(TypeError, match=r"await outbox\.record\(session"):
            database.outbox.record_sync(session, [envelope(1)])  # type: ignore[arg-type] # what the test is about
        with pytest.raises(TypeError, match=r"outbox\.record_sync\(session"):
            await database.outbox.record(session.sync_session, [envelope(1)])  # type: ignore[arg-type] # as above


def test_the_error_for_a_missing_table_says_how_to_create_it(tmp_path: Path) -> None:
    _, tables = open_engine("sqlite+aiosqlite://")
    engine = create_engine(f"sqlite:///{tmp_path / 'empty.db'}")
    with Session(engine) as session, pytest.raises(OperationalError) as caught:
        Outbox(tables).record_sync(session, [envelope(1)])
    engine.dispose()

    assert "define_tables(metadata)" in caught.value.__notes__[0]


async def test_recording_without_a_table_says_how_to_create_it(database: OutboxDatabase) -> None:
    async with database.engine.begin() as connection:
        await connection.run_sync(database.tables.recorded_events.metadata.drop_all)

    async with database.sessions() as session:
        with pytest.raises(DBAPIError) as caught:
            await database.outbox.record(session, [envelope(1)])

    assert "define_tables(metadata)" in caught.value.__notes__[0]


def test_recording_with_psycopg_says_how_to_create_it_too(outbox_postgres_url: str) -> None:
    _, tables = open_engine("sqlite+aiosqlite://")
    engine = create_engine(outbox_postgres_url.replace("asyncpg", "psycopg"))
    with engine.begin() as connection:
        tables.recorded_events.metadata.drop_all(connection)
    with Session(engine) as session, pytest.raises(ProgrammingError) as caught:
        Outbox(tables).record_sync(session, [envelope(1)])
    engine.dispose()

    assert "define_tables(metadata)" in caught.value.__notes__[0]


async def test_a_worker_logs_a_missing_table_and_when_it_exists(
    database: OutboxDatabase, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "smartlink.broadcasting.outbox")
    metadata = database.tables.recorded_events.metadata
    async with database.engine.begin() as connection:
        await connection.run_sync(metadata.drop_all)

    stop = asyncio.Event()
    working = asyncio.create_task(database.relay(FakeDriver()).run(stop))

    await eventually(lambda: "create the outbox's tables" in caplog.text)
    async with database.engine.begin() as connection:
        await connection.run_sync(metadata.create_all)
    await eventually(lambda: "the database works again" in caplog.text)
    stop.set()
    await working
    assert "started, for all queues" in caplog.text


@pytest.mark.parametrize(
    ("module", "missing"),
    [("smartlink.broadcasting", "pydantic_settings"), ("smartlink.broadcasting.outbox", "sqlalchemy")],
)
def test_importing_without_the_extra_names_it(module: str, missing: str) -> None:
    script = WITHOUT.format(module=module, missing=missing)
    said = processes.run([sys.executable, "-c", script], capture_output=True, text=True)

    assert said.returncode == 1
    assert "pip install 'smartlink-realtime[broadcasting]'" in said.stderr


@pytest.mark.parametrize(
    ("arguments", "extra"), [(["reverb", "start"], "server"), (["worker", "start"], "portal"), (["serve"], "all")]
)
def test_running_a_command_without_its_extra_names_it(arguments: list[str], extra: str) -> None:
    script = WITHOUT_TYPER.format(arguments=arguments)
    said = processes.run([sys.executable, "-c", script], capture_output=True, text=True)

    assert said.returncode == 1
    assert f"pip install 'smartlink-realtime[{extra}]'" in said.stderr
