"""The outbox in a Django project: its tables by `migrate`, its records in `transaction.atomic`."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from broadcasting.outbox_database import OutboxDatabase, open_engine, relaying
from kit.postgres import fresh_database
from kit.waiting import eventually
from smartlink.broadcasting.outbox import FailedEvents
from smartlink.broadcasting.testing import FakeDriver

PROJECT = Path(__file__).with_name("django_project.py")


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'django.db'}"
    else:
        with fresh_database(request.getfixturevalue("postgres_url")) as url:
            yield url


async def test_a_django_project_records_with_its_changes_and_a_relay_sends(empty_url: str) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(PROJECT), empty_url, stdout=asyncio.subprocess.PIPE, env=dict(os.environ)
    )
    printed, _ = await asyncio.wait_for(process.communicate(), 60)
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
