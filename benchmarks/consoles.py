"""Does a ping notice that operators watch? Ten consoles, 5,000 events a second, and an unrelated client's ping.

    python benchmarks/consoles.py [--consoles 10] [--events 5000] [--rounds 6] [--seconds 4]

Phases without and with open consoles alternate, so that other work on the machine affects both. Prints the p99 of each
phase and the server's CPU time per event, and the median over the rounds of the ratios with to without. The server runs
alone in a process, with one worker; load, consoles and pings have processes of their own.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import re
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from kit import processes
from smartlink.cli.doctor.socket import Socket
from smartlink.protocol.signing import signed_query

PORT, OPERATORS = 18_571, 18_572
BATCH = 10
SUBSCRIBERS = 4
PING_EVERY_S = 0.01


@contextlib.asynccontextmanager
async def server(folder: Path) -> AsyncIterator[int]:
    environment = os.environ | {
        "REVERB_SERVER_PORT": str(PORT),
        "REVERB_SERVER_RUNTIME_DIR": str(folder / "run"),
        "REVERB_METRICS_ENABLED": "true",
        "REVERB_METRICS_PORT": str(OPERATORS),
        "REVERB_WEBHOOK_QUEUE": "memory",
    }
    command = [str(Path(sys.executable).with_name("smartlink")), "reverb", "start", "--workers", "1"]
    process = await processes.spawn(
        *command, cwd=folder, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    assert process.stdout is not None
    try:
        while b"Realtime server:" not in await process.stdout.readline():
            assert process.returncode is None, "the server did not start"
        yield process.pid
    finally:
        process.terminate()
        await process.wait()


async def connect(stack: contextlib.AsyncExitStack, channel: str | None) -> Socket:
    socket = Socket("127.0.0.1", PORT, "/app/app-key?protocol=7", is_tls=False, origin=None)
    await stack.enter_async_context(socket)
    await socket.receive()
    if channel is not None:
        await socket.send({"event": "pusher:subscribe", "data": {"channel": channel}})
        await socket.receive()
    return socket


async def publish(per_s: int) -> None:
    """Publish at a steady pace, as far as the server answers in time."""
    path = "/apps/1001/batch_events"
    body = json.dumps({"batch": [{"name": "tick", "channel": "load", "data": "x" * 100}] * BATCH}).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", PORT)
    turn = time.monotonic()
    while True:
        query = signed_query("app-key", "app-secret", "POST", path, body, timestamp=int(time.time()))
        head = f"POST {path}?{query} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        answer = await reader.readuntil(b"\r\n\r\n")
        assert b" 200 " in answer, answer
        await reader.readexactly(len(b"{}"))
        turn = max(turn + BATCH / per_s, time.monotonic() - 0.1)
        await asyncio.sleep(max(0.0, turn - time.monotonic()))


async def load(events: int) -> None:
    """Publish to subscribers that read, but look at nothing."""
    async with contextlib.AsyncExitStack() as stack:
        sockets = [await connect(stack, "load") for _ in range(SUBSCRIBERS)]
        await asyncio.gather(publish(events), *(drain(socket._reader) for socket in sockets))  # noqa: SLF001 — unparsed


async def drain(reader: asyncio.StreamReader) -> int:
    count = 0
    while part := await reader.read(1 << 20):
        count += part.count(b'"kind":"publish"')
    return count


async def watch(consoles: int) -> None:
    """Keep consoles open."""
    readers = []
    for _ in range(consoles):
        reader, writer = await asyncio.open_connection("127.0.0.1", OPERATORS)
        writer.write(b"GET /api/console HTTP/1.1\r\nHost: localhost\r\n\r\n")
        readers.append((reader, writer))
    await asyncio.gather(*(drain(reader) for reader, _ in readers))


@contextlib.asynccontextmanager
async def apart(role: str, number: int) -> AsyncIterator[None]:
    """Run a role in a process of its own, so that it does not delay the pings."""
    process = await processes.spawn(sys.executable, __file__, "--role", role, "--number", str(number))
    try:
        yield
        assert process.returncode is None, f"{role} has ended"
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


def cpu_s(pid: int) -> float:
    """The CPU time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def published() -> int:
    """How many events the server has published."""
    reader, writer = await asyncio.open_connection("127.0.0.1", OPERATORS)
    writer.write(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
    text = (await reader.read()).decode()
    writer.close()
    return sum(map(int, re.findall(r"^smartlink_publications_total\{.*\} (\d+)$", text, re.MULTILINE)))


async def pings(socket: Socket, seconds: float) -> list[float]:
    times: list[float] = []
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        began = time.monotonic()
        await socket.send({"event": "pusher:ping", "data": {}})
        while (await socket.receive()).get("event") != "pusher:pong":
            pass
        times.append((time.monotonic() - began) * 1_000)
        await asyncio.sleep(PING_EVERY_S)
    return times


def p99(times: list[float]) -> float:
    return statistics.quantiles(times, n=100)[98]


async def main(consoles: int, events: int, rounds: int, seconds: float) -> None:
    ratios: list[float] = []
    costs: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        async with server(Path(folder)) as pid, apart("load", events), contextlib.AsyncExitStack() as stack:
            ping = await connect(stack, None)

            async def phase() -> tuple[float, float, float]:
                """The p99 in ms, events per second, and the server's CPU time per event in us."""
                began, cpu, count = time.monotonic(), cpu_s(pid), await published()
                tail = p99(await pings(ping, seconds))
                done = await published() - count
                return tail, done / (time.monotonic() - began), (cpu_s(pid) - cpu) / done * 1e6

            await pings(ping, 3)
            for number in range(rounds):
                without, per_s, cost = await phase()
                async with apart("watch", consoles):
                    await pings(ping, 2)
                    with_them, watched_per_s, watched_cost = await phase()
                ratios.append(with_them / without)
                costs.append(watched_cost / cost)
                print(
                    f"round {number + 1}: without {without:.2f} ms p99, {per_s:,.0f} events/s, {cost:.0f} us each; "
                    f"with {consoles} consoles {with_them:.2f} ms, {watched_per_s:,.0f} events/s, {watched_cost:.0f} us"
                )
                await pings(ping, 1)
    print(f"median ratio of p99 {statistics.median(ratios):.2f}, of CPU per event {statistics.median(costs):.2f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--consoles", type=int, default=10)
    parser.add_argument("--events", type=int, default=5_000)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--role", choices=("main", "load", "watch"), default="main")
    parser.add_argument("--number", type=int, default=0)
    given = parser.parse_args()
    if given.role == "main":
        asyncio.run(main(given.consoles, given.events, given.rounds, given.seconds))
    else:
        asyncio.run(load(given.number) if given.role == "load" else watch(given.number))
