"""Test helpers for an outbox: recorded events can be asserted, and sent on demand."""

from __future__ import annotations

import pytest

from broadcasting.announcing import Blinked, Order, Said, World, tables
from broadcasting.outbox_database import OutboxDatabase
from broadcasting.test_session_broadcasts import world as world
from smartlink.broadcasting import Channel, PrivateChannel
from smartlink.broadcasting.testing import (
    FakeBroadcaster,
    deliver_recorded,
    fake_broadcasts,
    recorded_broadcasts,
    recorded_broadcasts_sync,
)


async def test_deliver_recorded_can_be_called_repeatedly_without_waiting(database: OutboxDatabase) -> None:
    broadcaster = FakeBroadcaster()
    with fake_broadcasts(broadcaster) as broadcasts:
        for number in range(5):
            await database.record(*broadcaster.pack(broadcaster.on(Channel("news")).as_(f"n{number}").event))

            assert await deliver_recorded(database.engine, database.tables, broadcaster) == 1
            broadcasts.assert_broadcast(f"n{number}", on=Channel("news"), times=1)
    assert await deliver_recorded(database.engine, database.tables, broadcaster) == 0


async def test_recorded_broadcasts_sees_its_own_transaction_and_commits_but_no_rollbacks(
    database: OutboxDatabase,
) -> None:
    broadcaster = FakeBroadcaster()
    said = broadcaster.on(PrivateChannel("orders.7")).as_("said").with_({"n": 1}).event
    async with database.sessions() as session:
        await database.outbox.record(session, broadcaster.pack(said, socket_id="1.2"))
        seen = await recorded_broadcasts(session, database.tables)
        await session.rollback()
        gone = await recorded_broadcasts(session, database.tables)

    seen.assert_broadcast("said", on="private-orders.7", to_others=True, times=1, where=lambda it: it["n"] == 1)
    seen.assert_not_broadcast("other")
    gone.assert_nothing_broadcast()
    with pytest.raises(AssertionError, match="expected other at least once, found 0; sent: said on"):
        seen.assert_broadcast("other")


def test_sync_sessions_find_recorded_events_by_class(world: World) -> None:
    with world.sessions() as session:
        world.broadcasts.announce(session, Said("hi"))
        session.add(Order(id=7))
        session.commit()
        recorded = recorded_broadcasts_sync(session, tables)

    recorded.assert_broadcast(Said, on="chat", times=1, to_others=False)
    recorded.assert_broadcast("OrderCreated")
    recorded.assert_not_broadcast(Blinked)
