"""A database with the outbox's tables: SQLite in a file, or a real PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from broadcasting.outbox_database import OutboxDatabase, open_database
from kit.postgres import fresh_database
from kit.pusher_service import PusherService, pusher_service


@pytest.fixture(scope="session")
def outbox_postgres_url(postgres_url: str) -> Iterator[str]:
    """A database for the outbox alone; each test creates its tables anew."""
    with fresh_database(postgres_url) as url:
        yield url.replace("postgresql://", "postgresql+asyncpg://")


@pytest.fixture(params=["sqlite", "postgresql"])
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[OutboxDatabase]:
    """Each test twice: on SQLite and on PostgreSQL."""
    if request.param == "sqlite":
        url = f"sqlite+aiosqlite:///{tmp_path / 'outbox.db'}"
    else:
        url = request.getfixturevalue("outbox_postgres_url")
    async with open_database(url) as database:
        yield database


@pytest.fixture
async def postgresql(outbox_postgres_url: str) -> AsyncIterator[OutboxDatabase]:
    """For what SQLite, with its one writer, cannot even be asked to do."""
    async with open_database(outbox_postgres_url) as database:
        yield database


@pytest.fixture
async def service() -> AsyncIterator[PusherService]:
    """A service that takes what it is sent, until told otherwise."""
    async with pusher_service() as service:
        yield service
