"""A reused database is as a new one for the next test."""

from __future__ import annotations

import psycopg

from kit.portal import World
from kit.postgres import ReusedDatabase, fresh_database


async def test_what_a_test_stored_is_gone_and_ids_start_again(postgres_url: str, postgres_template: str) -> None:
    with fresh_database(postgres_url, postgres_template) as url:
        reused = ReusedDatabase(url)
        ids = []
        for _ in range(2):
            reused.empty()
            world = World(url)
            ana, ben = await world.person("Ana"), await world.person("Ben")
            ids.append((ana.id, ben.id, await world.direct_message(ana, ben)))
            await world.aclose()
        reused.empty()

        assert ids[0] == ids[1]
        with psycopg.connect(url) as connection:
            for (table,) in connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'"):
                (count,) = connection.execute(f'SELECT count(*) FROM "{table}"').fetchone() or (None,)  # type: ignore[call-overload]
                assert count == (table == "alembic_version")
