"""`/up` is 503 with the reason while the database cannot be written, and 200 again afterwards."""

from __future__ import annotations

import asyncio
import resource
import shutil
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import pytest

from kit.portal import World
from smartlink.portal.shared import health


@pytest.fixture
async def world(
    sqlite_template: str, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[World]:
    monkeypatch.setattr(health, "GOOD_FOR_S", 0.0)
    path = tmp_path_factory.mktemp("db") / "portal.db"
    shutil.copyfile(sqlite_template, path)
    world = World(f"sqlite+aiosqlite:///{path}")
    yield world
    await world.aclose()


@contextmanager
def no_file_grows() -> Iterator[None]:
    """To the database as a full disk: no byte more than it has."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


async def test_an_unwritable_database_is_503_with_the_reason(world: World) -> None:
    client = world.client()
    assert (await client.get("/up")).status_code == 200

    with no_file_grows():
        refused = await client.get("/up")
        head = await client.head("/up")

    assert (refused.status_code, head.status_code) == (503, 503)
    assert refused.json()["message"].startswith("The database does not accept writes: ")
    assert refused.headers["retry-after"] == "1"
    assert (await client.get("/up")).status_code == 200


async def test_a_full_disk_is_503_with_the_reason(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "FREE_BYTES", 2**62)

    refused = await world.client().get("/up")

    assert refused.status_code == 503
    assert refused.json()["message"].startswith("The database's disk is full: ")


async def test_a_locked_database_makes_up_503(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    file = world.portal.database.file
    assert file is not None
    holder = sqlite3.connect(file, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")

    refused = await world.client().get("/up")

    holder.close()
    assert (refused.status_code, refused.json()["message"]) == (
        503,
        "The database does not accept writes: database is locked.",
    )


async def test_concurrent_checks_write_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "GOOD_FOR_S", 60.0)
    asked = []
    found = world.portal.health._found

    async def counted() -> str | None:
        asked.append(1)
        return await found()

    monkeypatch.setattr(world.portal.health, "_found", counted)
    world.portal.health._written_at = -60.0

    for _ in range(5):
        assert (await world.client().get("/up")).status_code == 200

    assert len(asked) == 1


async def test_many_concurrent_checks_share_two_results(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    found = world.portal.health._found

    async def counted() -> str | None:
        asked.append(1)
        return await found()

    monkeypatch.setattr(world.portal.health, "_found", counted)

    await asyncio.gather(*(world.portal.health.check() for _ in range(200)))

    assert len(asked) <= 2
