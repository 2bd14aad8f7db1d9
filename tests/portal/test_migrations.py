"""The database is downgraded and upgraded with data, and private messages never become public."""

from __future__ import annotations

from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import MetaData, create_engine, event, make_url, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.pool import NullPool

from kit.portal import World
from smartlink.portal import migrations, seed
from smartlink.portal.shared.db import Base, outbox_tables


class Data:
    """A synchronous look into the database."""

    def __init__(self, url: str) -> None:
        parsed = make_url(url)
        driver = "sqlite" if parsed.get_backend_name() == "sqlite" else "postgresql+psycopg"
        self.engine = create_engine(parsed.set(drivername=driver), poolclass=NullPool)
        if driver == "sqlite":
            event.listen(self.engine, "connect", lambda connection, _: connection.execute("PRAGMA foreign_keys=ON"))

    def do(self, statement: str) -> None:
        with self.engine.begin() as connection:
            connection.execute(text(statement))

    def ask(self, statement: str) -> list[Any]:
        with self.engine.connect() as connection:
            return [tuple(row) for row in connection.execute(text(statement))]


def test_downgrading_and_upgrading_keeps_public_messages_and_hides_direct_ones(empty_url: str) -> None:
    migrations.upgrade(empty_url)
    seed.seed(empty_url)
    data = Data(empty_url)
    public = data.ask("SELECT id, message FROM chat_messages WHERE recipient_id IS NULL ORDER BY id")
    secret = data.ask("SELECT message FROM chat_messages WHERE recipient_id IS NOT NULL")
    assert public
    assert secret

    migrations.downgrade(empty_url, "0001")

    assert data.ask("SELECT id, message FROM chat_messages ORDER BY id") == public
    migrations.upgrade(empty_url)
    assert data.ask("SELECT id, message FROM chat_messages WHERE recipient_id IS NULL ORDER BY id") == public
    assert data.ask("SELECT count(*) FROM users") == [(3,)]
    migrations.downgrade(empty_url, "base")
    assert migrations.current(empty_url) is None


def test_ids_are_never_reused_even_after_a_downgrade(empty_url: str) -> None:
    migrations.upgrade(empty_url)
    seed.seed(empty_url)
    data = Data(empty_url)
    [(last,)] = data.ask("SELECT max(id) FROM chat_messages")

    migrations.downgrade(empty_url, "0001")
    migrations.upgrade(empty_url)
    data.do(
        "INSERT INTO chat_messages (user_id, message, is_read, created_at, updated_at)"
        " VALUES (1, 'new', false, CURRENT_TIMESTAMP, CURRENT_TIMESTAMP)"
    )

    [(new,)] = data.ask("SELECT max(id) FROM chat_messages")
    assert new > last


def test_the_migrated_database_matches_the_models(empty_url: str) -> None:
    migrations.upgrade(empty_url)
    wanted = MetaData()
    for table in (*Base.metadata.sorted_tables, *outbox_tables.recorded_events.metadata.sorted_tables):
        table.to_metadata(wanted)

    # The index of words is of another kind on each database, and in no model.
    own = {
        "include_object": lambda _object, name, *_: (
            not (name or "").removeprefix("ix_").startswith("chat_messages_text")
        )
    }
    with Data(empty_url).engine.connect() as connection:
        differences = compare_metadata(MigrationContext.configure(connection, opts=own), wanted)

    assert differences == []


def test_the_expected_revision_is_the_last_one(empty_url: str) -> None:
    migrations.upgrade(empty_url)

    assert migrations.current(empty_url) == migrations.HEAD


def test_foreign_keys_survive_a_downgrade_and_upgrade(empty_url: str) -> None:
    migrations.upgrade(empty_url)
    migrations.downgrade(empty_url, "0001")
    migrations.upgrade(empty_url)

    with pytest.raises(IntegrityError):
        Data(empty_url).do(
            "INSERT INTO chat_messages (user_id, recipient_id, message, is_read, created_at, updated_at)"
            " VALUES (77, 78, 'x', false, CURRENT_TIMESTAMP, CURRENT_TIMESTAMP)"
        )


async def test_demo_data_is_created_once_and_its_users_can_sign_in(database_url: str) -> None:
    people = seed.seed(database_url)
    assert seed.seed(database_url) == people
    world = World(database_url)

    answers = [
        await world.client().post("/api/login", json={"email": person.email, "password": person.password})
        for person in people
    ]

    assert [answer.status_code for answer in answers] == [200, 200, 200]
    assert [answer.json()["user"]["is_admin"] for answer in answers] == [False, False, True]
    counts = {
        table: (await world.rows(f"SELECT count(*) FROM {table}"))[0][0]
        for table in ("chat_messages", "campaigns", "wallet_transactions", "ledger_entries", "notifications")
    }
    assert counts == {
        "chat_messages": 6,
        "campaigns": 3,
        "wallet_transactions": 3,
        "ledger_entries": 6,
        "notifications": 5,
    }
    assert [row[0] for row in await world.rows("SELECT sum(amount) FROM ledger_entries")] == [0]
    balances = "SELECT balance, version FROM wallets ORDER BY id"
    assert len(await world.rows(balances)) == 2
    await world.aclose()


async def test_an_admin_is_created_from_the_command_line_once(database_url: str) -> None:
    user_id = seed.create_user(
        database_url, name="Root", email="Root@Example.com", password="long enough", is_admin=True
    )

    world = World(database_url)
    assert await world.rows("SELECT id, email, is_admin FROM users") == [(user_id, "root@example.com", True)]
    await world.aclose()
