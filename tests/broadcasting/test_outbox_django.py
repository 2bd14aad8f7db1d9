"""The outbox in a Django project: tables created by `migrate`, events recorded in `transaction.atomic`."""

from __future__ import annotations

import asyncio
import io
import json
import os
import re
import sys
from collections.abc import Awaitable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.management.base import BaseCommand, CommandError, OutputWrapper
from sqlalchemy import MetaData, create_engine
from sqlalchemy.ext.asyncio import AsyncEngine

from broadcasting.outbox_database import OutboxDatabase, open_engine, relaying
from kit import processes
from kit.postgres import fresh_database
from kit.pusher_service import PusherService, pusher_service
from kit.waiting import LIMIT_S, eventually, eventually_told
from smartlink.broadcasting.outbox import FailedEvents, OutboxTables, define_tables, read_status
from smartlink.broadcasting.outbox.django.engine import opened_outbox
from smartlink.broadcasting.outbox.django.management.commands import broadcast_failed, broadcast_worker
from smartlink.broadcasting.testing import FakeDriver

PROJECT = Path(__file__).with_name("django_project.py")


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'django.db'}"
    else:
        with fresh_database(request.getfixturevalue("postgres_url")) as url:
            yield url


async def test_a_django_project_records_events_and_a_relay_sends_them(empty_url: str) -> None:
    process = await processes.spawn(
        sys.executable, str(PROJECT), empty_url, stdout=asyncio.subprocess.PIPE, env=dict(os.environ)
    )
    printed, _ = await asyncio.wait_for(process.communicate(), LIMIT_S)
    done = json.loads(printed)

    engine, tables = open_engine(
        empty_url.replace("sqlite:", "sqlite+aiosqlite:").replace("postgresql:", "postgresql+asyncpg:")
    )
    driver = FakeDriver()
    database = OutboxDatabase(engine, tables)
    async with relaying(database, driver):
        await eventually(lambda: len(driver.sent) == 3)
        async with database.sessions.begin() as session:
            await session.execute(tables.recorded_events.update().values(state="failed"))
            assert await FailedEvents(tables).retry_all(session) == 3
        await eventually(lambda: len(driver.sent) == 6)
    retried = await database.column("id")
    await engine.dispose()

    assert done["orders"] == 1
    assert done["rung"] == ["default", "high"]
    assert done["rings_after_rollback"] == 1
    payloads = {json.loads(sent.payload)["n"]: json.loads(sent.payload) for sent in driver.sent[:3]}
    again = {json.loads(sent.payload)["n"]: json.loads(sent.payload)["eventId"] for sent in driver.sent[3:]}
    assert payloads[1] == {"eventId": done["ids"][0], "n": 1, "text": "100%s é"}
    assert [payloads[n]["eventId"] for n in (1, 3, 4)] == done["ids"]
    assert [again[n] for n in (1, 3, 4)] == retried
    assert min(retried) > max(done["ids"])


def reaching(service: PusherService) -> dict[str, str]:
    return {
        "REVERB_PORT": str(service.port),
        "REVERB_APP_ID": service.app_id,
        "REVERB_APP_KEY": service.key,
        "REVERB_APP_SECRET": service.secret,
    }


def start(url: str, *words: str, **environment: str) -> Awaitable[asyncio.subprocess.Process]:
    """The project, or a command of its `manage.py`, in a process of its own."""
    return processes.spawn(
        sys.executable, str(PROJECT), url, *words,
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE, env=os.environ | environment,
    )  # fmt: skip


async def end(process: asyncio.subprocess.Process) -> tuple[int | None, bytes]:
    _, complained = await asyncio.wait_for(process.communicate(), LIMIT_S)
    return process.returncode, complained


def handled(command: BaseCommand, **options: Any) -> str:
    """What a command says: here, past Django's own reading of its words."""
    parser = command.create_parser("manage.py", "command")
    defaults = {action.dest: action.default for action in parser._actions}
    command.stdout = OutputWrapper(io.StringIO())
    command.handle(**defaults | options)
    said: str = command.stdout.getvalue()
    return said


async def test_manage_py_sends_recorded_events_and_handles_failed_ones(empty_url: str) -> None:
    async_url = empty_url.replace("sqlite:", "sqlite+aiosqlite:").replace("postgresql:", "postgresql+asyncpg:")

    async def failed(action: str, which: str | None = None, **options: Any) -> str:
        return await asyncio.to_thread(
            lambda: handled(broadcast_failed.Command(), action=action, which=which, url=async_url, **options)
        )

    await end(await start(empty_url))
    async with pusher_service() as service:
        service.answers = lambda call: 413 if any('"n":3' in event["data"] for event in call.events) else 200
        worker = await start(empty_url, "broadcast_worker", "--queue", "high,default", **reaching(service))
        await eventually(lambda: len(service.payloads()) == 2)
        async with opened_outbox("default", async_url) as (engine, tables):
            await eventually_told(lambda: _has_failed(engine, tables))
        worker.terminate()
        code, logged = await end(worker)
        assert (code, b"failed: " in logged, b"Traceback" in logged) == (0, True, False)
        assert sorted(payload["n"] for payload in service.payloads()) == [1, 4]

        service.answers = lambda _: 200
        [listed] = json.loads(await failed("list", as_json=True))
        assert "413" in listed["error"]
        assert (await failed("list")).split()[0] == str(listed["id"])
        assert await failed("retry", "all") == "1 event queued again\n"
        again = await start(empty_url, "broadcast_worker", "--stop-when-empty", **reaching(service))
        assert await end(again) == (0, b"")

    assert [payload["n"] for payload in service.payloads()][-1] == 3
    assert await failed("list") == "No failed events\n"
    with pytest.raises(CommandError, match="There is no failed event 99"):
        await failed("forget", "99")
    with pytest.raises(CommandError, match="There are no failed events"):
        await failed("forget", "all")


async def _has_failed(engine: AsyncEngine, tables: OutboxTables) -> bool:
    return (await read_status(engine, tables)).failed > 0


WRONG: list[tuple[type[BaseCommand], dict[str, Any], str]] = [
    (broadcast_worker.Command, {"url": "mysql://host/db"}, "pip install asyncpg"),
    (broadcast_worker.Command, {"url": "EMPTY"}, "Did you run `migrate`"),
    (broadcast_worker.Command, {"queue": "a b"}, "is not a queue"),
    (broadcast_worker.Command, {"concurrency": 0}, "must be at least 1"),
    (broadcast_worker.Command, {"broadcaster": "nowhere.at_all"}, "nowhere"),
    (broadcast_worker.Command, {"broadcaster": "json.JSONDecoder"}, "must name a Broadcaster"),
    (broadcast_failed.Command, {"action": "retry"}, "give an event id, or all"),
    (broadcast_failed.Command, {"action": "forget", "which": "x"}, "give an event id, or all"),
    (broadcast_failed.Command, {"action": "list", "url": "EMPTY"}, "Did you run `migrate`"),
]


@pytest.mark.parametrize(("command", "options", "said"), WRONG, ids=[said for _, _, said in WRONG])
def test_manage_py_reports_errors_in_one_sentence(
    tmp_path: Path, command: type[BaseCommand], options: dict[str, Any], said: str
) -> None:
    urls = {name: f"sqlite+aiosqlite:///{tmp_path / name}.db" for name in ("EMPTY", "migrated")}
    metadata = MetaData()
    define_tables(metadata)
    engine = create_engine(urls["migrated"].replace("+aiosqlite", ""))
    metadata.create_all(engine)
    engine.dispose()
    given = {"url": "migrated"} | options
    given["url"] = urls.get(given["url"], given["url"])

    with pytest.raises(CommandError, match=re.escape(said)):
        handled(command(), **given)
