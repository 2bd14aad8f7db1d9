"""Queries past SQLAlchemy's objects return what those within a session do, and fail as they do."""

from __future__ import annotations

import asyncio
import datetime as dt

import pytest
from sqlalchemy import bindparam, func, literal_column, select, text
from sqlalchemy.exc import DBAPIError

from kit.portal import Person, World
from kit.waiting import eventually_told
from smartlink.portal.shared.db import Database
from smartlink.portal.shared.errors import DatabaseAway
from smartlink.portal.users.model import Token, User

CALLER = (
    select(
        User.id, User.name, User.is_admin, User.blocked_at, User.created_at, Token.abilities, Token.expires_at,
        func.coalesce(Token.last_used_at, User.created_at),
    )
    .join(Token, Token.user_id == User.id)
    .where(User.id == bindparam("id"), User.created_at <= bindparam("until"), User.is_admin.is_(False), User.id > 0)
)  # fmt: skip
DIVIDED = select(literal_column("1 / 0"))
SLOW = select(func.pg_sleep(60))
END = text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%'")


async def test_values_are_those_of_a_session(world: World, ana: Person) -> None:
    database = world.portal.database
    until = dt.datetime.now(dt.UTC) + dt.timedelta(minutes=1)
    async with database.reading() as session:
        expected = [tuple(row) for row in await session.execute(CALLER, {"id": ana.id, "until": until})]

    async with database.fetching() as fetch:
        found = await fetch(CALLER, id=ana.id, until=until)
        assert await fetch(CALLER, id=ana.id + 1_000, until=until) == []

    assert expected
    assert [tuple(row) for row in found] == expected
    assert expected[0][4].tzinfo is not None
    assert isinstance(expected[0][5], list)


async def test_a_failed_query_is_an_error_of_the_caller_and_the_connection_stays(world: World, ana: Person) -> None:
    database = world.portal.database
    if database.is_sqlite:
        pytest.skip("SQLite divides by zero")
    with pytest.raises(Exception, match="division by zero") as raised:
        async with database.fetching() as fetch:
            await fetch(DIVIDED)
    assert not isinstance(raised.value, DatabaseAway | DBAPIError)

    async with database.fetching() as fetch:
        assert await fetch(CALLER, id=ana.id, until=dt.datetime.now(dt.UTC))


async def test_a_cancelled_query_leaves_a_usable_connection(world: World, ana: Person) -> None:
    database = world.portal.database
    if database.is_sqlite:
        pytest.skip("SQLite has no sleep")

    async def sleep() -> None:
        async with database.fetching() as fetch:
            await fetch(SLOW)

    for _ in range(12):  # more than the pool holds
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(sleep(), 0.05)
        async with database.fetching() as fetch:
            assert await fetch(CALLER, id=ana.id, until=dt.datetime.now(dt.UTC))


async def test_a_lost_connection_is_a_database_that_is_away(world: World, ana: Person) -> None:
    database = world.portal.database
    if database.is_sqlite:
        pytest.skip("SQLite has no connection to lose")

    async def sleep() -> None:
        async with database.fetching() as fetch:
            await fetch(SLOW)

    other = Database(database.engine.url.render_as_string(hide_password=False))
    sleeping = asyncio.create_task(sleep())
    try:
        async with other.writing() as session:

            async def is_ended() -> bool:
                return bool((await session.execute(END)).all())

            await eventually_told(is_ended)
        with pytest.raises(DatabaseAway):
            await sleeping
    finally:
        await other.aclose()
    async with database.fetching() as fetch:
        assert await fetch(CALLER, id=ana.id, until=dt.datetime.now(dt.UTC))
