"""The relay while the database is slow: stopping, or losing a lease, during each of its statements.

A gate holds one statement, before or after it was carried out; meanwhile the relay is told to stop, or loses its share.
Whatever it then finds, no channel stays behind, nothing is out of order, and nothing is left under way.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import Executable, event, select, text
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.util import await_only

from broadcasting.outbox_database import OutboxDatabase, envelope
from kit.waiting import LIMIT_S, eventually
from smartlink.broadcasting import BroadcastRefused, BroadcastUnavailable, Envelope
from smartlink.broadcasting.outbox import Relay, Schedule, Until, leases, relay, schedule
from smartlink.broadcasting.outbox.direct import written
from smartlink.broadcasting.testing import FakeDriver

STATEMENTS = {
    "read": "SELECT id, channel, name",
    "mark": "SET state = 'sent'",
    "set aside": "SET state = 'failed'",
    "hold": "available_at = ",
    "renew": "UPDATE outbox_lease SET expires_at=",
    "say that it lives": "INSERT INTO outbox_workers",
    "take": "INSERT INTO outbox_lease",
}


gates: list[Gate] = []
"""Those of the test that runs."""


class Gate:
    """Holds the next statement that contains `text`, `after` it was carried out or before."""

    def __init__(self, database: OutboxDatabase, text: str, *, after: bool) -> None:
        self.reached = asyncio.Event()
        self._open = asyncio.Event()
        self._text = text
        self._is_armed = False
        self._is_after = after
        gates.append(self)
        when = "after_cursor_execute" if after else "before_cursor_execute"
        event.listen(database.engine.sync_engine, when, self._pass)

    def arm(self) -> None:
        self._is_armed = True

    def open(self) -> None:
        self._open.set()

    def _pass(self, _: Any, __: Any, statement: str, *___: Any) -> None:
        if self._is_armed and self._text in statement:
            self._is_armed = False
            self.reached.set()
            await_only(self._open.wait())

    async def wait(self, statement: str, *, after: bool) -> None:
        """As an event does, for statements that the relay executes past the engine's events."""
        if self._is_armed and self._is_after == after and self._text in statement:
            self._is_armed = False
            self.reached.set()
            await self._open.wait()


class SickDriver(FakeDriver):
    """Refuses one channel, and gives no verdict on another one's first two calls."""

    def __init__(self) -> None:
        super().__init__()
        self.ill = 2

    async def send(self, envelopes: Sequence[Envelope], *, idempotency_key: str | None = None) -> None:
        channels = {each.channel for each in envelopes}
        if "private-refused" in channels:
            raise BroadcastRefused("no")
        if "private-ill" in channels and self.ill:
            self.ill -= 1
            raise BroadcastUnavailable("what?", answered=True)
        await super().send(envelopes, idempotency_key=idempotency_key)

    def numbers(self, channel: str) -> list[int]:
        """In the order of their first sending."""
        return list(dict.fromkeys(json.loads(each.payload)["n"] for each in self.sent if each.channel == channel))


def wave(first: int) -> list[Envelope]:
    healthy = [envelope(first + step, f"private-{step % 3}") for step in range(6)]
    return [*healthy, envelope(first, "private-refused"), envelope(first, "private-ill")]


@asynccontextmanager
async def nothing_left_behind(database: OutboxDatabase) -> AsyncIterator[None]:
    """Within the block nothing is raised that nobody hears of; at its end no task and no connection is left."""
    loop, before = asyncio.get_running_loop(), asyncio.all_tasks()
    unheard: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: unheard.append(context))
    yield
    await eventually(lambda: not asyncio.all_tasks() - before)
    assert unheard == []
    pool: Any = database.engine.pool
    await eventually(lambda: not pool.checkedout())


def lose_share(of: Relay) -> None:
    of._leases.valid_until = 0.0
    of._bell.set()


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (relay, schedule):
        monkeypatch.setattr(module, "_GIVE_UP_S", 0.2)
    gates.clear()

    async def gated(connection: AsyncConnection, statements: Sequence[Executable], **given: object) -> None:
        text = "; ".join(str(each.compile(dialect=connection.dialect)) for each in statements)  # type: ignore[attr-defined]
        for gate in gates:
            await gate.wait(text, after=False)
        await written(connection, statements, **given)
        for gate in gates:
            await gate.wait(text, after=True)

    monkeypatch.setattr(leases, "written", gated)


@pytest.mark.parametrize("after", [False, True], ids=["before it", "after it"])
@pytest.mark.parametrize("statement", STATEMENTS)
async def test_stopping_during_a_statement_leaves_nothing_behind_and_loses_nothing(
    database: OutboxDatabase, statement: str, after: bool
) -> None:
    gate = Gate(database, STATEMENTS[statement], after=after)
    driver = SickDriver()
    stop = asyncio.Event()
    first = database.relay(driver, lease_s=0.6, send_timeout_s=1.0)
    await database.record(*wave(0))

    async with nothing_left_behind(database):
        gate.arm()
        running = asyncio.create_task(first.run(stop))
        await asyncio.wait_for(gate.reached.wait(), 10)
        stop.set()
        await asyncio.wait_for(running, 20)
        gate.open()

    await database.record(*wave(10))
    await all_sent(database, driver, first)


@pytest.mark.parametrize("after", [False, True], ids=["before it", "after it"])
@pytest.mark.parametrize("statement", STATEMENTS)
async def test_losing_a_lease_during_a_statement_leaves_no_channel_behind(
    database: OutboxDatabase, statement: str, after: bool
) -> None:
    gate = Gate(database, STATEMENTS[statement], after=after)
    driver = SickDriver()
    stop = asyncio.Event()
    first = database.relay(driver, lease_s=0.6)
    await database.record(*wave(0))

    async with nothing_left_behind(database):
        gate.arm()
        running = asyncio.create_task(first.run(stop))
        await asyncio.wait_for(gate.reached.wait(), 10)
        lose_share(first)
        await asyncio.sleep(0)
        gate.open()
        await database.record(*wave(10))
        await eventually(lambda: len(driver.numbers("private-ill")) == 2)
        await finished(database)
        stop.set()
        await asyncio.wait_for(running, 20)

    assert_in_order(driver)


@pytest.mark.parametrize("after", [False, True], ids=["before it", "after it"])
@pytest.mark.parametrize("statement", ["mark", "renew", "say that it lives", "take"])
async def test_stopping_during_a_statement_releases_the_leases_after_it(
    database: OutboxDatabase, monkeypatch: pytest.MonkeyPatch, statement: str, after: bool
) -> None:
    monkeypatch.setattr(relay, "_GIVE_UP_S", LIMIT_S)
    gate = Gate(database, STATEMENTS[statement], after=after)
    stop = asyncio.Event()
    await database.record(*wave(0))

    gate.arm()
    running = asyncio.create_task(database.relay(SickDriver()).run(stop))
    await asyncio.wait_for(gate.reached.wait(), 10)
    stop.set()
    await asyncio.sleep(0)
    gate.open()
    await asyncio.wait_for(running, LIMIT_S)

    async with database.engine.connect() as connection:
        assert set(await connection.scalars(select(database.tables.outbox_lease.c.expires_at))) <= {0}
        assert not (await connection.scalars(select(database.tables.outbox_workers.c.id))).all()


@pytest.mark.parametrize("after", [False, True], ids=["before it", "after it"])
@pytest.mark.parametrize("statement", ["read", "renew", "say that it lives", "take"])
async def test_run_once_renews_leases_that_a_statement_outlasted(
    database: OutboxDatabase, statement: str, after: bool
) -> None:
    gate = Gate(database, STATEMENTS[statement], after=after)
    relay = database.relay(driver := FakeDriver(), lease_s=1.0)
    await database.record(*(envelope(number) for number in range(3)))

    gate.arm()
    running = asyncio.create_task(relay.run_once())
    await asyncio.wait_for(gate.reached.wait(), 10)
    await asyncio.sleep(1.1)
    gate.open()

    assert await asyncio.wait_for(running, LIMIT_S) == len(driver.sent) == 3


async def test_run_once_raises_if_the_database_is_too_slow_to_keep_a_lease(database: OutboxDatabase) -> None:
    relay = database.relay(FakeDriver(), lease_s=1e-6)
    await database.record(envelope(0))

    with pytest.raises(TimeoutError, match="renew a lease"):
        await relay.run_once()


async def test_a_scheduled_job_that_never_ends_does_not_delay_a_stop(database: OutboxDatabase) -> None:
    gate = Gate(database, "SELECT 7", after=False)
    stop = asyncio.Event()

    async def job() -> None:
        async with database.engine.connect() as connection:
            await connection.execute(text("SELECT 7"))

    jobs = Schedule(database.engine, database.tables)
    jobs.every(60, "stuck", job, first_s=0.0)
    async with nothing_left_behind(database):
        gate.arm()
        running = asyncio.create_task(jobs.run(stop))
        await asyncio.wait_for(gate.reached.wait(), 10)
        stop.set()
        await asyncio.wait_for(running, 10)
        gate.open()


async def all_sent(database: OutboxDatabase, driver: SickDriver, again: Relay) -> None:
    """By the relay that was stopped, which starts once more."""
    stop = asyncio.Event()
    running = asyncio.create_task(again.run(stop))
    await finished(database)
    stop.set()
    await asyncio.wait_for(running, 20)
    assert_in_order(driver)


async def finished(database: OutboxDatabase) -> None:
    async with asyncio.timeout(20):
        while "pending" in await database.column("state"):
            await asyncio.sleep(0.05)


def assert_in_order(driver: SickDriver) -> None:
    assert driver.numbers("private-0") == [0, 3, 10, 13]
    assert driver.numbers("private-1") == [1, 4, 11, 14]
    assert driver.numbers("private-2") == [2, 5, 12, 15]
    assert driver.numbers("private-ill") == [0, 10]


async def test_a_worker_that_stops_when_empty_reads_every_queue_first(database: OutboxDatabase) -> None:
    gate = Gate(database, STATEMENTS["say that it lives"], after=False)
    driver = FakeDriver()
    await database.record(replace(envelope(1), queue="high"))

    gate.arm()
    running = asyncio.create_task(database.relay(driver).run(asyncio.Event(), Until(is_empty=True)))
    await asyncio.wait_for(gate.reached.wait(), LIMIT_S)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(running), 0.3)
    gate.open()
    await asyncio.wait_for(running, LIMIT_S)

    assert len(driver.sent) == 1
