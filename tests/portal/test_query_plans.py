"""The most frequent queries use indexes, however many messages there are."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import Select, text

from kit.portal import Person, World
from smartlink.portal.chat import queries
from smartlink.portal.shared.paging import Page

PAGE = Page(limit=50, before=None, after=None)

QUESTIONS = {
    "general": queries.general(PAGE),
    "general before": queries.general(Page(limit=50, before=1000, after=None)),
    "between": queries.between(1, 2, PAGE),
    "conversations": queries.last_of_each(1, 200),
    "unread": queries.unread_of_each(1),
}


@pytest.fixture
async def talk(world: World, ana: Person, ben: Person) -> World:
    one = "SELECT {0}, {1}, 'x', {2}, CURRENT_TIMESTAMP, CURRENT_TIMESTAMP FROM numbers"
    numbers = (
        "WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 3000) "
        if "sqlite" in world.url
        else "WITH numbers AS (SELECT generate_series(1, 3000) AS n) "
    )
    columns = "INSERT INTO chat_messages (user_id, recipient_id, message, is_read, created_at, updated_at) "
    for row in ((ana.id, "NULL", "false"), (ana.id, ben.id, "true"), (ben.id, ana.id, "true")):
        insert = numbers + one.format(*row)
        await world.execute(columns + insert)
    async with world.portal.database.engine.connect() as connection:
        await connection.execute(text("ANALYZE"))
        await connection.commit()
    return world


@pytest.mark.parametrize("question", QUESTIONS)
async def test_the_main_queries_scan_no_table(talk: World, question: str) -> None:
    plan = await _plan(talk, QUESTIONS[question])

    if "sqlite" in talk.url:
        scans = [line for line in plan if "SCAN chat_messages" in line and "INDEX" not in line]
    else:
        scans = [line for line in plan if "Seq Scan on chat_messages" in line]
    # SQLite may walk general chat back from its end, row by row, until the page is full; PostgreSQL, which finds the
    # conversations' last messages by index, may then read them along with a table as small as this.
    is_walk = question == ("general" if "sqlite" in talk.url else "conversations")
    assert is_walk or not scans, "\n".join(plan)


async def _plan(world: World, statement: Select[Any]) -> list[str]:
    dialect = world.portal.database.engine.dialect
    sql = str(statement.compile(dialect=dialect, compile_kwargs={"literal_binds": True}))
    explain = "EXPLAIN QUERY PLAN " if dialect.name == "sqlite" else "EXPLAIN "
    async with world.portal.database.engine.connect() as connection:
        rows = (await connection.exec_driver_sql(explain + sql)).all()
    return [str(row[-1]) for row in rows]
