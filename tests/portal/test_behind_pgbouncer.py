"""The portal behind PgBouncer in transaction mode: DB_PGBOUNCER is enough, and errors name it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
import typer
from sqlalchemy import text

from kit.pgbouncer import pgbouncer
from kit.postgres import fresh_database
from smartlink.cli.failures import database_errors
from smartlink.portal import migrations
from smartlink.portal.shared.db import Database
from smartlink.portal.shared.settings import PortalSettings


@pytest.fixture
def pooled_url(postgres_url: str) -> Iterator[str]:
    with fresh_database(postgres_url) as url, pgbouncer(url) as pooled:
        yield pooled


async def test_migrations_reads_and_writes_work_through_pgbouncer(pooled_url: str) -> None:
    url = PortalSettings(_env_file=None, database_url=pooled_url, db_pgbouncer=True).url
    migrations.upgrade(url)
    database = Database(url)

    async def write(number: int) -> int:
        async with database.writing() as session:
            name = await session.scalar(text("SELECT current_setting('lock_timeout')"))
            assert name == "5s"
            await session.execute(text("UPDATE users SET name = :name WHERE id = :id"), {"name": "x", "id": number})
        async with database.reading() as session:
            return int(await session.scalar(text("SELECT CAST(:n AS integer) + count(*) FROM users"), {"n": number}))

    assert await asyncio.gather(*(write(number) for number in range(60))) == list(range(60))
    await database.aclose()


def test_without_the_setting_the_error_names_it(pooled_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    async def look() -> None:
        database = Database(PortalSettings(_env_file=None, database_url=pooled_url).url)
        try:
            async with database.reading() as session:
                await session.execute(text("SELECT 1"))
        finally:
            await database.aclose()

    with pytest.raises(typer.Exit), database_errors():
        asyncio.run(look())

    assert "DB_PGBOUNCER=true" in capsys.readouterr().err
