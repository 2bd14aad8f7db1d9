"""The library behind PgBouncer in transaction mode: one option is enough, and errors name it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine

from broadcasting.outbox_database import OutboxDatabase, envelope
from kit.pgbouncer import pgbouncer
from kit.waiting import eventually
from smartlink.broadcasting.outbox import PostgresListener, Relay, engine_for, read_status, run_worker, wakeup
from smartlink.broadcasting.testing import FakeBroadcaster, FakeDriver


@pytest.fixture
def pooled_url(postgresql: OutboxDatabase) -> Iterator[str]:
    with pgbouncer(postgresql.engine.url.render_as_string(hide_password=False)) as url:
        yield url


async def test_recording_and_several_workers_keep_order_through_pgbouncer(
    postgresql: OutboxDatabase, pooled_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    engine = engine_for(f"{pooled_url}?pgbouncer=true", pool_size=20)
    sessions, fake, stop = async_sessionmaker(engine), FakeBroadcaster(), asyncio.Event()
    workers = [asyncio.create_task(run_worker(engine, postgresql.tables, fake, stop=stop)) for _ in range(3)]

    async def write(channel: int) -> None:
        for number in range(25):
            async with sessions.begin() as session:
                await postgresql.outbox.record(session, [envelope(number, f"private-{channel}")])

    await asyncio.gather(*(write(channel) for channel in range(8)))
    await eventually(lambda: len(fake.sent) == 200)
    status = await read_status(engine, postgresql.tables)
    stop.set()
    await asyncio.gather(*workers)
    await engine.dispose()

    assert status.has_worker
    for channel in range(8):
        numbers = [json.loads(each.payload)["n"] for each in fake.sent if each.channel == f"private-{channel}"]
        assert numbers == list(range(25))
    assert "the database failed" not in caplog.text
    assert "cannot listen" not in caplog.text


async def test_a_worker_with_a_direct_listen_engine_receives_notify(
    postgresql: OutboxDatabase, pooled_url: str
) -> None:
    engine, fake, stop = engine_for(f"{pooled_url}?pgbouncer=true"), FakeBroadcaster(), asyncio.Event()
    heard = asyncio.Event()
    listening = asyncio.create_task(PostgresListener(postgresql.engine).listen(heard.set))
    await asyncio.wait_for(heard.wait(), 30)
    worker = run_worker(engine, postgresql.tables, fake, stop=stop, listen_engine=postgresql.engine)
    working = asyncio.create_task(worker)
    heard.clear()
    async with async_sessionmaker(engine).begin() as session:
        await postgresql.outbox.record(session, [envelope(1)])

    await eventually(lambda: fake.sent)
    await asyncio.wait_for(heard.wait(), 30)
    stop.set()
    await working
    listening.cancel()
    await asyncio.gather(listening, return_exceptions=True)
    await engine.dispose()


async def test_a_listener_behind_pgbouncer_logs_what_to_configure(
    pooled_url: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wakeup, "_ASK_EVERY_S", 0.5)
    unaware = _unaware(pooled_url)
    listening = asyncio.create_task(PostgresListener(unaware).listen(lambda: None))

    await eventually(lambda: "cannot listen to PostgreSQL, sweeping instead" in caplog.text)
    assert "DB_PGBOUNCER=true" in caplog.text
    listening.cancel()
    await asyncio.gather(listening, return_exceptions=True)
    await unaware.dispose()


async def test_a_worker_without_the_pgbouncer_option_logs_what_to_configure(
    postgresql: OutboxDatabase, pooled_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    engine = create_async_engine(pooled_url, connect_args={"server_settings": {"lock_timeout": "5s"}})
    stop = asyncio.Event()
    working = asyncio.create_task(Relay(engine, postgresql.tables, FakeDriver()).run(stop))

    await eventually(lambda: "DB_PGBOUNCER=true, or add ?pgbouncer=true" in caplog.text)
    stop.set()
    await working
    await engine.dispose()


def _unaware(url: str) -> AsyncEngine:
    return create_async_engine(
        url, connect_args={"statement_cache_size": 0, "prepared_statement_name_func": lambda: ""}
    )
