"""Every test of the portal runs on SQLite and on PostgreSQL, each with a database of its own."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import closing

import psycopg
import pytest

from kit.portal import Person, World
from kit.postgres import ReusedDatabase, fresh_database
from smartlink.portal import migrations

TEMPLATE = "smartlink_template"


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A migrated database to copy."""
    path = tmp_path_factory.mktemp("template") / "template.db"
    migrations.upgrade(f"sqlite:///{path}")
    return str(path)


@pytest.fixture(scope="session")
def postgres_template(postgres_url: str) -> str:
    """The name of a migrated database to copy."""
    with closing(psycopg.connect(postgres_url, autocommit=True)) as connection:
        connection.execute(f'CREATE DATABASE "{TEMPLATE}"')
    migrations.upgrade(f"{postgres_url.rpartition('/')[0]}/{TEMPLATE}")
    return TEMPLATE


@pytest.fixture(scope="session")
def reused_database(postgres_url: str, postgres_template: str) -> Iterator[ReusedDatabase]:
    with fresh_database(postgres_url, postgres_template) as url:
        yield ReusedDatabase(url)


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A migrated database without data."""
    if request.param == "sqlite":
        path = tmp_path_factory.mktemp("db") / "portal.db"
        shutil.copyfile(request.getfixturevalue("sqlite_template"), path)
        yield f"sqlite+aiosqlite:///{path}"
        return
    reused: ReusedDatabase = request.getfixturevalue("reused_database")
    reused.empty()
    yield reused.url


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A database without tables."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path_factory.mktemp('db') / 'portal.db'}"
        return
    with fresh_database(request.getfixturevalue("postgres_url")) as url:
        yield url


@pytest.fixture
async def world(database_url: str) -> AsyncIterator[World]:
    world = World(database_url)
    yield world
    await world.aclose()


@pytest.fixture
async def ana(world: World) -> Person:
    return await world.person("Ana")


@pytest.fixture
async def ben(world: World) -> Person:
    return await world.person("Ben")


@pytest.fixture
async def eve(world: World) -> Person:
    return await world.person("Eve")
