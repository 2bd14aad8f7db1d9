"""What the outbox costs: recording in CPU time, the way from commit to HTTP request, events a second by one worker.

    python benchmarks/outbox.py [record] [latency] [throughput]

Databases, Redis and the service are started here, on free ports; the worker is a process of its own. The service
only counts: it answers 200 to every call.
"""

from __future__ import annotations

import asyncio
import os
import re
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from broadcasting.outbox_database import OutboxDatabase, envelope, open_database, open_engine, service_driver
from kit import processes
from kit.ports import free_port
from kit.postgres import cluster
from smartlink.broadcasting import Envelope
from smartlink.broadcasting.outbox import Outbox, PostgresListener, RedisBell, RedisListener, Relay

_LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)
_OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"


class CountingService(asyncio.Protocol):
    """Takes everything; notes when each call came and how many events it brought."""

    calls: list[tuple[float, int]]
    heard: asyncio.Event

    def __init__(self, calls: list[tuple[float, int]], heard: asyncio.Event) -> None:
        self.calls, self.heard = calls, heard
        self._buffer = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (head := self._buffer.find(b"\r\n\r\n")) >= 0:
            found = _LENGTH.search(self._buffer, 0, head)
            end = head + 4 + (int(found[1]) if found else 0)
            if len(self._buffer) < end:
                return
            self.calls.append((time.perf_counter(), self._buffer.count(b'"channel"', 0, end) or 1))
            self.heard.set()
            del self._buffer[:end]
            self._transport.write(_OK)  # type: ignore[attr-defined]


@asynccontextmanager
async def counting() -> AsyncIterator[tuple[int, list[tuple[float, int]], asyncio.Event]]:
    calls: list[tuple[float, int]] = []
    heard = asyncio.Event()
    server = await asyncio.get_running_loop().create_server(lambda: CountingService(calls, heard), "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], calls, heard
    finally:
        server.close()


async def record(name: str, database: OutboxDatabase) -> None:
    """CPU of this process per event, above the same transaction without it."""
    engine = database.engine
    async with engine.begin() as connection:
        await connection.execute(text("CREATE TABLE work (number integer)"))
    change = text("INSERT INTO work VALUES (1)")

    async def transaction(envelopes: list[Envelope]) -> float:
        started = time.process_time()
        async with database.sessions() as session:
            await session.execute(change)
            await database.outbox.record(session, envelopes)
            await session.commit()
        return (time.process_time() - started) * 1e6

    for events, count in ((1, 3000), (10, 1000), (100, 300)):
        envelopes = [envelope(number, f"private-{number % 50}") for number in range(events)]
        bare, recording = [], []
        # One of each in turn: whatever else the machine does meets both.
        for _ in range(count):
            bare.append(await transaction([]))
            recording.append(await transaction(envelopes))
        median = (statistics.median(recording) - statistics.median(bare)) / events
        mean = (statistics.fmean(recording) - statistics.fmean(bare)) / events
        print(
            f"record   {name:<11} {events:>4} per transaction: {median:7.1f} µs CPU per event, median of {count} "
            f"(mean {mean:.1f}; the transaction alone {statistics.median(bare):.0f})"
        )


async def latency(name: str, database: OutboxDatabase, environment: dict[str, str], outbox: Outbox) -> None:
    """From the return of commit to the arrival of the request, while nothing else happens."""
    async with counting() as (port, calls, heard), worker(database.engine, port, environment):
        await _until_it_works(database, calls, heard, outbox)
        ways = []
        for number in range(300):
            heard.clear()
            async with database.sessions.begin() as session:
                await outbox.record(session, [envelope(number)])
            outbox.wake()
            committed = time.perf_counter()
            await asyncio.wait_for(heard.wait(), 10)
            ways.append((calls[-1][0] - committed) * 1e3)
            await asyncio.sleep(0.02)
        ways.sort()
        print(
            f"latency  {name:<24} p50 {ways[150]:6.2f} ms   p95 {ways[285]:6.2f} ms   p99 {ways[297]:6.2f} ms   "
            f"least {ways[0]:.2f} ms"
        )


async def throughput(name: str, database: OutboxDatabase, events: int) -> None:
    """One worker over a backlog: events a second of the clock and of the worker's own CPU."""
    rates, own = [], []
    for _ in range(3):
        for start in range(0, events, 500):
            await database.record(
                *(envelope(number, f"private-{number % 200}") for number in range(start, start + 500))
            )
        async with counting() as (port, calls, heard):
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            async with worker(database.engine, port, {}):
                while sum(count for _, count in calls) < events:
                    heard.clear()
                    await asyncio.wait_for(heard.wait(), 60)
                rates.append((events - calls[0][1]) / (calls[-1][0] - calls[0][0]))
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            own.append(events / used)
    print(
        f"relay    {name:<11} {events} events in {len(calls)} calls: {statistics.median(rates):,.0f} events/s "
        f"(most {max(rates):,.0f}); {statistics.median(own):,.0f} per second of the worker's CPU, its start included"
    )


async def _until_it_works(
    database: OutboxDatabase, calls: list[tuple[float, int]], heard: asyncio.Event, outbox: Outbox
) -> None:
    async with database.sessions.begin() as session:
        await outbox.record(session, [envelope(0)])
    outbox.wake()
    await asyncio.wait_for(heard.wait(), 20)
    await asyncio.sleep(1)


@asynccontextmanager
async def worker(engine: AsyncEngine, port: int, environment: dict[str, str]) -> AsyncIterator[None]:
    process = await processes.spawn(
        sys.executable,
        __file__,
        "as-worker",
        engine.url.render_as_string(hide_password=False),
        str(port),
        env={**os.environ, **environment},
    )
    try:
        yield
    finally:
        process.terminate()
        await asyncio.wait_for(process.wait(), 20)


async def as_worker(url: str, port: int) -> None:
    import signal

    engine, tables = open_engine(url)
    redis_url = os.environ.get("OUTBOX_REDIS")
    listeners = [RedisListener(redis_url)] if redis_url else []
    if not redis_url and engine.dialect.name == "postgresql":
        listeners = [PostgresListener(engine)]
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    driver = service_driver(port)
    await Relay(engine, tables, driver, listeners=listeners).run(stop)
    await driver.aclose()
    await engine.dispose()


@asynccontextmanager
async def redis_server() -> AsyncIterator[str]:
    port = free_port()
    command = ("redis-server", "--port", str(port), "--save", "", "--loglevel", "warning")
    server = await processes.spawn(*command, stdout=asyncio.subprocess.DEVNULL)
    try:
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        server.terminate()
        await asyncio.wait_for(server.wait(), 10)


async def main(wanted: Callable[[str], bool]) -> None:
    print(f"{os.cpu_count()} cores, Python {sys.version.split()[0]}, load {os.getloadavg()[0]:.1f}")
    with cluster() as server, tempfile.TemporaryDirectory() as folder:
        postgres = server.replace("postgresql://", "postgresql+asyncpg://")
        sqlite = f"sqlite+aiosqlite:///{folder}/outbox.db"
        if wanted("record"):
            for name, url in (("PostgreSQL", postgres), ("SQLite", sqlite)):
                async with open_database(url) as database:
                    await record(name, database)
        if wanted("latency"):
            async with redis_server() as redis_url, open_database(postgres) as database:
                await latency("PostgreSQL, NOTIFY", database, {}, database.outbox)
                ringing = Outbox(database.tables, notify=False, bell=RedisBell(redis_url))
                await latency("PostgreSQL, Redis", database, {"OUTBOX_REDIS": redis_url}, ringing)
                ringing.close()
            async with redis_server() as redis_url, open_database(sqlite) as database:
                ringing = Outbox(database.tables, bell=RedisBell(redis_url))
                await latency("SQLite, Redis", database, {"OUTBOX_REDIS": redis_url}, ringing)
                ringing.close()
        if wanted("throughput"):
            for name, url in (("PostgreSQL", postgres), ("SQLite", sqlite)):
                async with open_database(url) as database:
                    await throughput(name, database, 10_000)


if __name__ == "__main__":
    try:
        import uvloop

        run = uvloop.run
    except ImportError:
        run = asyncio.run
    if sys.argv[1:2] == ["as-worker"]:
        run(as_worker(sys.argv[2], int(sys.argv[3])))
    else:
        chosen = sys.argv[1:]
        run(main(lambda part: not chosen or part in chosen))
