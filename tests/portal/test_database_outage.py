"""A locked or unavailable database: 503 with Retry-After, nothing half done, and recovery afterwards."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest
from sqlalchemy import text

from kit.portal import Person, World
from kit.postgres import cluster
from smartlink.broadcasting import PayloadTooLarge
from smartlink.portal import migrations
from smartlink.portal.chat.events import MessageSent
from smartlink.portal.shared import db
from smartlink.portal.shared.errors import DatabaseAway
from smartlink.portal.users.channels import user_channel


async def test_a_locked_database_is_503_and_then_serves_again(
    world: World, ana: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "postgresql" in world.url:
        pytest.skip("PostgreSQL has no lock on the whole database")
    async with world.portal.database.engine.connect() as connection:
        await connection.exec_driver_sql("PRAGMA busy_timeout=50")
    monkeypatch.setattr(db, "WAIT_S", 0.2)
    path = world.url.partition("///")[2]
    with closing(sqlite3.connect(path, isolation_level=None)) as locker:
        locker.execute("BEGIN IMMEDIATE")
        locked = await ana.post("/api/chat/messages", {"message": "x"})
        locker.execute("ROLLBACK")

    assert (locked.status_code, locked.headers["retry-after"]) == (503, "1")
    assert set(locked.json()) == {"message"}
    assert (await ana.post("/api/chat/messages", {"message": "x"})).status_code == 201
    assert len(await world.rows("SELECT id FROM chat_messages")) == 1


async def test_an_unavailable_postgresql_is_503_everywhere() -> None:
    with cluster() as url:
        migrations.upgrade(url)
        world = World(url)
        ana = await world.person("Ana")
        assert (await ana.get("/up")).json() == {"status": "ok"}

    answers = [
        await ana.get("/up"),
        await ana.post("/api/chat/messages", {"message": "x"}),
        await ana.get("/api/chat/messages"),
        await ana.post("/broadcasting/auth", {"socket_id": "1.2", "channel_name": "presence-chat"}),
    ]

    assert [(answer.status_code, answer.headers.get("retry-after")) for answer in answers] == [(503, "1")] * 4
    await world.aclose()


async def test_rolled_back_changes_are_not_announced(world: World, ana: Person) -> None:
    async def announce_and_fail() -> None:
        async with world.portal.announcer.work() as work:
            work.announce(MessageSentTo(ana.id))
            raise ConnectionResetError

    with pytest.raises(DatabaseAway):
        await announce_and_fail()

    (await world.broadcasts()).assert_nothing_broadcast()


async def test_a_change_whose_event_cannot_be_packed_is_rolled_back(world: World, ana: Person) -> None:
    async def announce_too_much() -> None:
        async with world.portal.announcer.work() as work:
            await work.session.execute(text("DELETE FROM users"))
            work.announce(MessageSentTo(ana.id, "x" * 20_000))

    with pytest.raises(PayloadTooLarge):
        await announce_too_much()

    (await world.broadcasts()).assert_nothing_broadcast()
    assert len(await world.rows("SELECT id FROM users")) == 1


class MessageSentTo(MessageSent):
    """An event of any size."""

    def __init__(self, user_id: int, content: str = "x") -> None:
        object.__setattr__(self, "user_id", user_id)
        object.__setattr__(self, "content", content)

    def broadcast_on(self):  # type: ignore[no-untyped-def]
        return user_channel(self.user_id)

    def broadcast_with(self) -> dict[str, object]:
        return {"content": self.content}
