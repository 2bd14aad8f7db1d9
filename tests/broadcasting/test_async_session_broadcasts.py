"""Announcing in transactions of asynchronous sessions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_scoped_session,
    async_sessionmaker,
    create_async_engine,
)

from broadcasting.announcing import (
    Base,
    Blinked,
    Order,
    Quiet,
    Said,
    tables,
)
from kit.waiting import eventually
from smartlink.broadcasting import (
    BroadcastUnavailable,
    from_socket,
)
from smartlink.broadcasting.outbox import Outbox
from smartlink.broadcasting.sessions import SessionBroadcasts
from smartlink.broadcasting.testing import FakeBroadcaster


@pytest.fixture(params=["sqlite", "postgresql"])
async def async_engine(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[AsyncEngine]:
    is_sqlite = request.param == "sqlite"
    url = f"sqlite+aiosqlite:///{tmp_path / 'a.db'}" if is_sqlite else request.getfixturevalue("outbox_postgres_url")
    engine = create_async_engine(url)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.drop_all)
        await connection.run_sync(Base.metadata.create_all)
    yield engine
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.drop_all)
    await engine.dispose()


async def test_async_sessions_announce_too(async_engine: AsyncEngine) -> None:
    sessions = async_sessionmaker(async_engine)
    broadcasts = SessionBroadcasts(FakeBroadcaster(), Outbox(tables))
    broadcasts.attach(sessions)
    plain = async_sessionmaker(async_engine)

    with from_socket("3.4"):
        async with sessions.begin() as session:
            session.add(Order())
            broadcasts.announce(session, Said("hi"), to_others=True)
    async with plain.begin() as session:
        session.add(Order())

    events = tables.recorded_events
    async with async_engine.connect() as connection:
        rows = (await connection.execute(select(events.c.name, events.c.socket_id).order_by(events.c.id))).all()
    assert rows == [("App\\Events\\Said", "3.4"), ("OrderCreated", None)]


async def test_async_sessions_send_live_events_with_an_async_broadcaster(
    async_engine: AsyncEngine, caplog: pytest.LogCaptureFixture
) -> None:
    fake = FakeBroadcaster()
    broadcasts = SessionBroadcasts(fake, Outbox(tables), send_live=fake.send_envelopes)
    async with AsyncSession(async_engine) as session:
        broadcasts.attach(session)
        broadcasts.announce(session, Blinked())
        await session.commit()
        await eventually(lambda: fake.sent)

        fake.fake_driver.fails_with = BroadcastUnavailable("away")
        broadcasts.announce(session, Blinked())
        await session.commit()
        await eventually(lambda: "live events lost (App\\Events\\Blinked): BroadcastUnavailable" in caplog.text)


async def test_a_rolled_back_async_savepoint_is_not_announced(async_engine: AsyncEngine) -> None:
    sessions = async_sessionmaker(async_engine)
    broadcasts = SessionBroadcasts(FakeBroadcaster(), Outbox(tables))
    broadcasts.attach(sessions)

    async with sessions.begin() as session:
        savepoint = await session.begin_nested()
        session.add(Order())
        await session.flush()
        await savepoint.rollback()
        session.add(Quiet())
        broadcasts.announce(session, Said("kept"))

    events = tables.recorded_events
    async with async_engine.connect() as connection:
        assert (await connection.scalars(select(events.c.name))).all() == ["App\\Events\\Said"]


async def test_an_async_scoped_session_announces_and_records_too(async_engine: AsyncEngine) -> None:
    session = async_scoped_session(async_sessionmaker(async_engine), scopefunc=asyncio.current_task)
    broadcasts = SessionBroadcasts(FakeBroadcaster(), Outbox(tables))
    broadcasts.attach(session)

    session.add(Order())
    broadcasts.announce(session, Said("hi"))
    await session.commit()
    await Outbox(tables).record(session, FakeBroadcaster().pack(Said("by hand")))
    await session.commit()
    await session.remove()

    events = tables.recorded_events
    async with async_engine.connect() as connection:
        names = (await connection.scalars(select(events.c.name).order_by(events.c.id))).all()
    assert names == ["App\\Events\\Said", "OrderCreated", "App\\Events\\Said"]
