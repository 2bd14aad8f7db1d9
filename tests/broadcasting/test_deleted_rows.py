"""A model that broadcasts its changes never fails the COMMIT, even if its row or object is gone."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, delete, event, select, text, update
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import Session, make_transient, sessionmaker

from broadcasting.announcing import Base, RingingOutbox, Room, Seat, World, tables
from broadcasting.test_async_session_broadcasts import async_engine as async_engine
from smartlink.broadcasting.outbox import Outbox
from smartlink.broadcasting.sessions import SessionBroadcasts
from smartlink.broadcasting.testing import FakeBroadcaster


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    engine = create_engine(f"sqlite:///{tmp_path / 'w.db'}")
    event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA foreign_keys=ON"))
    Base.metadata.create_all(engine)
    sessions, outbox = sessionmaker(engine), RingingOutbox()
    broadcasts = SessionBroadcasts(FakeBroadcaster(), outbox)
    with sessions.begin() as session:
        session.add_all([Room(id=1), Seat(id=1, room_id=1), Seat(id=2, room_id=1)])
    broadcasts.attach(sessions)
    yield World(engine, sessions, broadcasts, outbox, [])
    engine.dispose()


def cascade(session: Session, _: Seat) -> None:
    session.delete(session.get_one(Room, 1))


def in_bulk(session: Session, _: Seat) -> None:
    session.execute(delete(Seat).execution_options(synchronize_session=False))


def by_sql(session: Session, _: Seat) -> None:
    session.execute(text("DELETE FROM seats"))


GONE: dict[str, Callable[[Session, Seat], None]] = {"a cascade": cascade, "in bulk": in_bulk, "plain SQL": by_sql}


@pytest.mark.parametrize("how", GONE)
@pytest.mark.parametrize("is_expired", [False, True])
def test_a_row_deleted_outside_the_session_does_not_fail_the_commit(
    world: World, how: str, is_expired: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with world.sessions.begin() as session:
        seat = session.get_one(Seat, 1)
        seat.n = 5
        session.flush()
        GONE[how](session, seat)
        session.flush()
        if is_expired:
            session.expire(seat)

    assert world.recorded() == []
    assert "not announcing that it was updated" in caplog.text


def test_a_bulk_delete_of_loaded_models_is_announced_like_any_other(world: World) -> None:
    with world.sessions.begin() as session:
        seat = session.get_one(Seat, 1)
        seat.n = 5
        session.flush()
        session.execute(delete(Seat).where(Seat.id == 1))

    assert world.recorded() == [("room.1", "SeatDeleted", {"model": 1})]


def expunge(session: Session, seat: Seat) -> None:
    session.expunge(seat)


def expunge_changed(session: Session, seat: Seat) -> None:
    session.expunge(seat)
    seat.n = 99


def expunge_all(session: Session, seat: Seat) -> None:
    session.expire(seat)
    session.expunge_all()


def make_new(session: Session, seat: Seat) -> None:
    session.refresh(seat)
    make_transient(seat)


LEAVING: dict[str, Callable[[Session, Seat], None]] = {
    "expunged": expunge,
    "expunged and changed": expunge_changed,
    "expired and expunged": expunge_all,
    "made transient": make_new,
}


@pytest.mark.parametrize("how", LEAVING)
def test_a_model_expunged_after_its_flush_is_announced_from_its_row(world: World, how: str) -> None:
    with world.sessions.begin() as session:
        seat = session.get_one(Seat, 1)
        seat.n = 5
        session.flush()
        LEAVING[how](session, seat)
        session.execute(update(Seat).where(Seat.id == 1).values(changed="later"))

    assert world.recorded() == [("room.1", "SeatUpdated", {"model": {"id": 1, "n": 5, "changed": "later"}})]


def test_an_expunged_model_without_a_row_is_not_announced(world: World) -> None:
    with world.sessions.begin() as session:
        seat = session.get_one(Seat, 1)
        seat.n = 5
        session.flush()
        session.expunge(seat)
        session.execute(text("DELETE FROM seats"))

    assert world.recorded() == []


def test_the_deletion_of_an_expired_model_is_announced_with_its_values(world: World) -> None:
    with world.sessions.begin() as session:
        seat = session.get_one(Seat, 1)
        session.expire(seat)
        session.delete(seat)

    assert world.recorded() == [("room.1", "SeatDeleted", {"model": 1})]


async def test_attaching_to_an_async_session_class_affects_no_other_class(
    async_engine: AsyncEngine,
) -> None:
    class Sessions(AsyncSession):
        pass

    SessionBroadcasts(FakeBroadcaster(), Outbox(tables)).attach(Sessions)
    async with AsyncSession(async_engine) as session:
        session.add_all([Room(id=1), Seat(id=1, room_id=1), Seat(id=2, room_id=1), Seat(id=3, room_id=1)])
        await session.commit()

    async with Sessions(async_engine) as session:
        left, gone, kept = (await session.scalars(select(Seat).order_by(Seat.id))).all()
        left.n = gone.n = kept.n = 5
        await session.flush()
        session.expunge(left)
        await session.execute(text("DELETE FROM seats WHERE id = 2"))
        await session.commit()

    events = tables.recorded_events
    async with async_engine.connect() as connection:
        payloads = [json.loads(each)["model"]["id"] for each in await connection.scalars(select(events.c.payload))]
    assert sorted(payloads) == [1, 3]
