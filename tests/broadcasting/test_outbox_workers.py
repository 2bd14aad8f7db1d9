"""Several workers: they share the queues' parts, take over from each other, and report their status."""

from __future__ import annotations

import asyncio
import errno
import json
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import create_async_engine

from broadcasting.outbox_database import OutboxDatabase, envelope, open_database, relaying
from kit import processes
from kit.ports import free_port
from kit.waiting import LIMIT_S, eventually
from smartlink.background import ended
from smartlink.broadcasting import BroadcastConfigError, Envelope
from smartlink.broadcasting.outbox import (
    Outbox,
    PostgresListener,
    RedisBell,
    RedisListener,
    Schedule,
    SqliteListener,
    Until,
    Wakeup,
    read_status,
    run_worker,
)
from smartlink.broadcasting.outbox.leases import LEASE_S, Leases
from smartlink.broadcasting.outbox.partition import PARTS
from smartlink.broadcasting.outbox.relay import _BEATS_PER_LEASE
from smartlink.broadcasting.testing import FakeBroadcaster, FakeDriver


def on(queue: str, number: int, channel: str = "private-a") -> Envelope:
    return replace(envelope(number, channel), queue=queue)


def sent(driver: FakeDriver) -> list[int]:
    return [json.loads(each.payload)["n"] for each in driver.sent]


async def test_two_workers_share_the_channels_without_duplicates(database: OutboxDatabase) -> None:
    first, second = FakeDriver(), FakeDriver()
    async with relaying(database, first, second, lease_s=1.0) as relays:
        await eventually(lambda: sum(bool(relay._leases.held) for relay in relays) == 2)
        for number in range(10):
            await database.record(*(envelope(number, f"private-{channel}") for channel in range(60)))
        await eventually(lambda: len(first.sent) + len(second.sent) >= 600)
        assert not relays[0]._leases.held & relays[1]._leases.held

    assert len(first.sent) + len(second.sent) == 600
    assert first.sent
    assert second.sent
    for channel in range(60):
        by_worker = [[e for e in driver.sent if e.channel == f"private-{channel}"] for driver in (first, second)]
        for own in by_worker:
            numbers = [json.loads(each.payload)["n"] for each in own]
            assert numbers == sorted(numbers)


async def test_a_dead_workers_parts_are_taken_over_within_three_seconds(database: OutboxDatabase) -> None:
    driver = FakeDriver()
    await database.relay(FakeDriver()).run_once()  # it holds everything, and never says a word again
    await database.record(*(envelope(number, f"private-{number}") for number in range(40)))

    async with relaying(database, driver, lease_s=LEASE_S):
        await eventually(lambda: len(driver.sent) == 40)

    assert LEASE_S + LEASE_S / _BEATS_PER_LEASE <= 3


async def test_queues_are_handled_by_priority(database: OutboxDatabase) -> None:
    driver = FakeDriver()
    for number, queue in enumerate(["low", "default", "high"]):
        await database.record(*(on(queue, number * 100 + n, f"private-{queue}-{n}") for n in range(30)))

    await database.relay(driver, queues=["high", "default", "low"], concurrency=1).run_once()

    assert [each.queue for each in driver.sent] == ["high"] * 30 + ["default"] * 30 + ["low"] * 30


async def test_a_worker_handles_only_its_queues_or_all_without_names(database: OutboxDatabase) -> None:
    high, every = FakeDriver(), FakeDriver()
    await database.record(on("high", 1), on("reports", 2), on("default", 3))

    assert await database.relay(high, queues=["high"]).run_once() == 1
    assert await database.relay(every).run_once() == 2

    assert sent(high) == [1]
    assert sorted(sent(every)) == [2, 3]


@pytest.mark.parametrize("name", ["", "with space", "x" * 33, "a,b", "a:b"])
async def test_an_invalid_queue_name_is_refused(database: OutboxDatabase, name: str) -> None:
    with pytest.raises(BroadcastConfigError, match="not a queue"):
        await database.record(on(name, 1))
    with pytest.raises(BroadcastConfigError, match="not a queue"):
        database.relay(FakeDriver(), queues=[name])


async def test_a_worker_can_exit_when_no_events_are_waiting(database: OutboxDatabase) -> None:
    driver = FakeDriver()
    await database.record(*(envelope(number, f"private-{number % 3}") for number in range(25)))

    await asyncio.wait_for(database.relay(driver).run(asyncio.Event(), Until(is_empty=True)), LIMIT_S)

    assert len(driver.sent) == 25
    assert (await read_status(database.engine, database.tables)).workers == ()


async def test_a_worker_can_exit_after_a_number_of_jobs(database: OutboxDatabase) -> None:
    driver = FakeDriver()
    await database.record(*(envelope(number, f"private-{number % 3}") for number in range(40)))

    await asyncio.wait_for(database.relay(driver).run(asyncio.Event(), Until(max_jobs=17)), LIMIT_S)

    assert len(driver.sent) == 17
    assert (await database.column("state")).count("sent") == 17


async def test_a_worker_can_exit_after_a_time(database: OutboxDatabase) -> None:
    await asyncio.wait_for(database.relay(FakeDriver()).run(asyncio.Event(), Until(max_time_s=0.05)), LIMIT_S)


async def test_notify_wakes_a_worker_in_another_process(postgresql: OutboxDatabase) -> None:
    driver = FakeDriver()
    listeners = [PostgresListener(postgresql.engine)]
    async with relaying(postgresql, driver, wakeup=Wakeup(), listeners=listeners, sweep_s=3600) as [relay]:
        await eventually(lambda: relay._leases.held)
        for number in range(3):
            await postgresql.record(envelope(number))
            await eventually(lambda number=number: len(driver.sent) == number + 1)  # type: ignore[misc]


@pytest.mark.parametrize("reports", [True, False], ids=["the system reports changes", "it has no instance left"])
async def test_a_change_of_the_file_wakes_a_worker_in_another_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reports: bool
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no watches left")

    if not reports:
        monkeypatch.setattr("asyncinotify.Inotify.add_watch", refuse)
    driver, file = FakeDriver(), tmp_path / "outbox.db"
    async with open_database(f"sqlite+aiosqlite:///{file}") as database:
        listeners = [SqliteListener(str(file))]
        async with relaying(database, driver, wakeup=Wakeup(), listeners=listeners, sweep_s=3600) as [relay]:
            await eventually(lambda: relay._leases.held)
            for number in range(3):
                await database.record(envelope(number))
                await eventually(lambda number=number: len(driver.sent) == number + 1)  # type: ignore[misc]


async def test_a_change_of_a_database_behind_a_symbolic_link_wakes(tmp_path: Path) -> None:
    """SQLite keeps the write-ahead log beside the file itself, not beside the link."""
    (tmp_path / "volume").mkdir()
    file, link = tmp_path / "volume" / "outbox.db", tmp_path / "outbox.db"
    file.write_text("empty")
    link.symlink_to(file)
    listener, woken = SqliteListener(str(link)), asyncio.Event()
    listening = asyncio.create_task(listener.listen(woken.set))
    try:
        await asyncio.sleep(0)
        file.with_name("outbox.db-wal").write_text("one page")
        await asyncio.wait_for(woken.wait(), LIMIT_S)
    finally:
        await ended(listening)


async def test_a_write_of_ones_own_wakes_nobody_and_one_of_others_does(tmp_path: Path) -> None:
    file = tmp_path / "outbox.db"
    file.write_text("empty")
    listener, woken = SqliteListener(str(file)), asyncio.Event()
    listening = asyncio.create_task(listener.listen(woken.set))
    try:
        await asyncio.sleep(0)
        with listener.held():
            file.write_text("ours")
            listener.pass_over()
        await asyncio.sleep(0.05)
        assert not woken.is_set()

        with listener.held():
            file.write_text("another's, which the holder did not see")
        await asyncio.wait_for(woken.wait(), LIMIT_S)
    finally:
        await ended(listening)


async def test_a_worker_whose_driver_lacks_notify_logs_it_and_sweeps(
    postgresql: OutboxDatabase, caplog: pytest.LogCaptureFixture
) -> None:
    fake, engine = FakeBroadcaster(), create_async_engine(postgresql.engine.url.set(drivername="postgresql+psycopg"))
    await postgresql.record(envelope(1))

    await run_worker(engine, postgresql.tables, fake, until=Until(is_empty=True))

    await engine.dispose()
    assert len(fake.sent) == 1
    assert "sweeping instead: BroadcastConfigError: it requires the driver asyncpg, not psycopg" in caplog.text


async def test_listening_resumes_after_a_lost_connection(postgresql: OutboxDatabase) -> None:
    driver = FakeDriver()
    listeners = [PostgresListener(postgresql.engine)]
    async with relaying(postgresql, driver, wakeup=Wakeup(), listeners=listeners, sweep_s=3600) as [relay]:
        await eventually(lambda: relay._leases.held)
        async with postgresql.engine.connect() as connection:
            await connection.exec_driver_sql(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'"
            )
        await postgresql.record(envelope(1))
        await eventually(lambda: driver.sent)


async def test_redis_wakes_a_worker_in_another_process_also_after_an_outage(database: OutboxDatabase) -> None:
    driver = FakeDriver()
    async with redis_server() as (url, restart):
        bell = RedisBell(url)
        outbox = Outbox(database.tables, notify=False, bell=bell)
        listeners = [RedisListener(url, ("default",))]
        async with relaying(database, driver, wakeup=Wakeup(), listeners=listeners, sweep_s=3600) as [relay]:
            await eventually(lambda: relay._leases.held)
            for number in range(6):
                if number == 3:
                    await restart()
                async with database.sessions.begin() as session:
                    await outbox.record(session, [envelope(number)])
                outbox.wake()
                await eventually(lambda number=number: len(driver.sent) == number + 1)  # type: ignore[misc]
        outbox.close()


async def test_without_redis_the_sweep_finds_events(database: OutboxDatabase) -> None:
    driver = FakeDriver()
    nowhere = "redis://127.0.0.1:1/0"
    outbox = Outbox(database.tables, notify=False, bell=RedisBell(nowhere))
    async with relaying(database, driver, wakeup=Wakeup(), listeners=[RedisListener(nowhere)]):
        async with database.sessions.begin() as session:
            await outbox.record(session, [envelope(1)])
        outbox.wake()
        await eventually(lambda: driver.sent)
    outbox.close()


async def test_a_scheduled_job_runs_on_one_worker_only(
    database: OutboxDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[int] = []
    taken: list[bool] = []
    stop = asyncio.Event()
    take = Leases.take

    async def told(self: Leases, names: Iterable[str]) -> set[str]:
        got = await take(self, names)
        taken.append(bool(got))
        return got

    monkeypatch.setattr(Leases, "take", told)

    def job(worker: int) -> Schedule:
        async def note() -> None:
            done.append(worker)

        schedule = Schedule(database.engine, database.tables)
        schedule.every(3600, "tidy", note, first_s=0.01)
        return schedule

    running = [asyncio.create_task(job(worker).run(stop)) for worker in range(4)]
    # Who stops releases its lease: nobody may still be about to ask for it.
    await eventually(lambda: len(taken) == 4)
    stop.set()
    await asyncio.gather(*running)

    assert (len(done), sum(taken)) == (1, 1)


async def test_a_job_that_is_not_needed_takes_no_lease(database: OutboxDatabase) -> None:
    asked: list[bool] = []
    done: list[int] = []
    needed = False

    async def is_needed() -> bool:
        asked.append(needed)
        return needed

    async def work() -> None:
        done.append(len(asked))

    async def leases() -> int:
        async with database.engine.connect() as connection:
            return await connection.scalar(select(func.count()).select_from(database.tables.outbox_lease)) or 0

    schedule = Schedule(database.engine, database.tables)
    schedule.every(0.05, "catch up", work, first_s=0.01, is_needed=is_needed)
    stop = asyncio.Event()
    running = asyncio.create_task(schedule.run(stop))
    await eventually(lambda: len(asked) >= 3)
    before = (list(done), await leases())
    needed = True
    await eventually(lambda: done)
    stop.set()
    await running

    assert before == ([], 0)
    assert await leases() == 1


async def test_the_status_reports_lag_counts_and_workers(database: OutboxDatabase) -> None:
    nobody = await read_status(database.engine, database.tables)
    await database.record(on("high", 1), on("default", 2), on("default", 3))
    relay = database.relay(FakeDriver(), queues=["high"])
    assert await relay.run_once() == 1

    status = await read_status(database.engine, database.tables)

    assert not nobody.has_worker
    assert (nobody.waiting, nobody.lag_s, nobody.queues) == (0, 0.0, ())
    assert status.has_worker
    assert [(queue.name, queue.waiting, queue.has_worker) for queue in status.queues] == [("default", 2, False)]
    assert status.lag_s >= 0
    [worker] = status.workers
    assert (worker.id, worker.queues, worker.is_alive) == (relay.worker_id, ("high",), True)


async def test_a_single_worker_holds_all_parts(database: OutboxDatabase) -> None:
    relay = database.relay(FakeDriver())
    await relay.run_once()

    assert relay._leases.held == {("default", number) for number in range(PARTS)}


@asynccontextmanager
async def redis_server() -> AsyncIterator[tuple[str, object]]:
    """A Redis on a free port, and a function that ends it and starts another one there."""
    processes.needs_server("Redis")
    port = free_port()
    running: list[asyncio.subprocess.Process] = []

    async def restart() -> None:
        for process in running:
            process.kill()
            await process.wait()
        running[:] = [
            await processes.spawn("redis-server", "--port", str(port), "--save", "", stdout=asyncio.subprocess.DEVNULL)
        ]

    await restart()
    try:
        yield f"redis://127.0.0.1:{port}/0", restart
    finally:
        for process in running:
            process.kill()
            await process.wait()
