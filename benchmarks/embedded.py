"""What the realtime server costs inside an application's process, beside one of its own.

    python benchmarks/embedded.py [--clients 300] [--events 2000] [--rounds 3]

Each is one process: `smartlink reverb start --workers 1`; uvicorn with a FastAPI application whose lifespan is
`embedded`; and applications with `RealtimeApp` at the ASGI server's own port. Clients are bare sockets in this process.
Figures are per CPU second of the server's process, so that other load on the machine matters little; memory is its
resident memory, before and with the clients.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, AsyncExitStack, contextmanager
from pathlib import Path

import httpx2

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from kit import processes
from kit.asgi_servers import ASGI_SERVERS, command_of
from kit.client import Client, connected
from kit.ports import free_port
from kit.realtime import APP_ID, KEY, SECRET
from kit.reverb import reverb
from kit.waiting import wait_until
from smartlink.protocol.signing import signed_query

TICK = os.sysconf("SC_CLK_TCK")
BATCH = 10
APPLICATION = """
import uvicorn
from fastapi import FastAPI
from smartlink.server.run.embedded import embedded
uvicorn.run(FastAPI(lifespan=embedded), uds="app.sock", log_level="warning")
"""
MOUNTED = """
from fastapi import FastAPI
from smartlink.server.run.mounted import RealtimeApp
realtime = RealtimeApp()
app = FastAPI(lifespan=realtime.lifespan)
app.mount("/", realtime)
"""
Place = Callable[[Path], AbstractContextManager[tuple[int, int]]]


@contextmanager
def alone(folder: Path) -> Iterator[tuple[int, int]]:
    """A server of its own; its process and port."""
    with reverb(folder, "--workers", "1") as server:
        yield server.process.pid, server.port


@contextmanager
def within(folder: Path) -> Iterator[tuple[int, int]]:
    """A server within an application; its process and port."""
    port = free_port()
    environment = os.environ | {"REVERB_SERVER_PORT": str(port), "REVERB_WEBHOOK_QUEUE": "memory"}
    command = [sys.executable, "-c", APPLICATION]
    process = processes.popen(command, cwd=folder, env=environment)
    try:
        yield process.pid, port
    finally:
        process.terminate()
        process.wait(30)


def mounted(server: str) -> Place:
    """A server mounted in an application that `server` serves."""

    @contextmanager
    def place(folder: Path) -> Iterator[tuple[int, int]]:
        port = free_port()
        (folder / "main.py").write_text(MOUNTED)
        environment = os.environ | {"REVERB_WEBHOOK_QUEUE": "memory"}
        process = processes.popen(command_of(server, port), cwd=folder, env=environment)
        try:
            wait_until(lambda: is_up(port))
            yield worker_of(process.pid), port
        finally:
            process.terminate()
            process.wait(30)

    return place


def worker_of(pid: int) -> int:
    """The process that serves: the last child that is Python's, or the process itself."""
    serving = pid
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        if "resource_tracker" not in Path(f"/proc/{child}/cmdline").read_text():
            serving = int(child)
    return serving


def cpu_s(pid: int) -> float:
    """The CPU time that a process has had."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def resident_kb(pid: int) -> int:
    """The memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4


async def hear(client: Client, events: int) -> None:
    """Read until that many events have come."""
    count = 0
    while count < events:
        data = await client.reader.read(65_536)
        if not data:
            raise RuntimeError("the server ended a connection")
        count += data.count(b'"event":"e"')


async def measure(pid: int, port: int, clients: int, events: int) -> tuple[float, float, int, float]:
    """Connects and deliveries per CPU second, memory in kB, and kB per client."""
    before_kb, began = resident_kb(pid), cpu_s(pid)
    async with asyncio.timeout(300), AsyncExitStack() as stack:
        there = [await stack.enter_async_context(connected(port)) for _ in range(clients)]
        for client in there:
            await client.subscribe("chat")
        connects = clients / (cpu_s(pid) - began)
        per_client = (resident_kb(pid) - before_kb) / clients
        hearing = [asyncio.create_task(hear(client, events)) for client in there]
        batch = [{"name": "e", "channel": "chat", "data": "x" * 100}] * BATCH
        body, path = json.dumps({"batch": batch}).encode(), f"/apps/{APP_ID}/batch_events"
        began = cpu_s(pid)
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=60) as http:
            for _ in range(events // BATCH):
                query = signed_query(KEY, SECRET, "POST", path, body, timestamp=int(time.time()))
                (await http.post(f"{path}?{query}", content=body)).raise_for_status()
        await asyncio.gather(*hearing)
        deliveries = clients * events / (cpu_s(pid) - began)
    return connects, deliveries, before_kb, per_client


def is_up(port: int) -> bool:
    """Whether something listens."""
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--clients", type=int, default=300)
    parser.add_argument("--events", type=int, default=2_000)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    places: dict[str, Place] = {"stand-alone": alone, "embedded": within}
    places |= {f"in {server}": mounted(server) for server in ASGI_SERVERS}
    found: dict[str, list[tuple[float, float, int, float]]] = {name: [] for name in places}
    for _ in range(given.rounds):
        for name, place in places.items():
            with tempfile.TemporaryDirectory() as folder, place(Path(folder)) as (pid, port):
                wait_until(lambda: is_up(port))
                found[name].append(asyncio.run(measure(pid, port, given.clients, given.events)))
    print(f"{'':<12} connects/CPU s  deliveries/CPU s  memory at start  per client")
    for name, rounds in found.items():
        connects, deliveries, before, each = (statistics.median(column) for column in zip(*rounds, strict=True))
        print(f"{name:<12} {connects:>14,.0f}  {deliveries:>16,.0f}  {before / 1024:>12.0f} MB  {each:>7.1f} kB")


if __name__ == "__main__":
    main()
