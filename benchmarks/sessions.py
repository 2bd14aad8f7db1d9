"""What sessions cost: memory per connection, and CPU per delivery with and without them, in one run.

`python benchmarks/sessions.py [clients] [events per second] [seconds]`. Prints both and their ratio.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from crowd import cpu_s

from kit.client import Client, connected
from kit.realtime import APP_ID, KEY, SECRET
from kit.reverb import Reverb, reverb
from smartlink.protocol.signing import signed_query

CLIENTS, EVENTS_PER_S, SECONDS = (int(word) for word in (sys.argv[1:] + ["1000", "50", "12"][len(sys.argv) - 1 :]))
BODY = json.dumps({"name": "e", "channel": "chat", "data": "x" * 100}).encode()
PATH = f"/apps/{APP_ID}/events"
HELD = 4_000
_PING, _PONG = b'"event":"pusher:ping"', json.dumps({"event": "pusher:pong", "data": {}}).encode()


def resident_kb(pid: int) -> int:
    """Resident memory, from proc_pid_status(5)."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


async def answer_pings(client: Client) -> None:
    """Read as a browser does, and look into nothing but pings."""
    while data := await client.reader.read(65_536):
        for _ in range(data.count(_PING)):
            client.send_frame(1, _PONG)


@contextlib.asynccontextmanager
async def crowd(server: Reverb, count: int, *, has_session: bool) -> AsyncIterator[None]:
    async with contextlib.AsyncExitStack() as stack:
        reading = []
        for _ in range(count):
            session = secrets.token_urlsafe(24) if has_session else None
            client = await stack.enter_async_context(connected(server.port, session=session))
            await client.subscribe("chat")
            reading.append(asyncio.create_task(answer_pings(client)))
        yield
        for task in reading:
            task.cancel()


async def publish(server: Reverb) -> int:
    events = 0
    async with httpx2.AsyncClient(trust_env=False) as http:
        until = time.monotonic() + SECONDS
        while (now := time.monotonic()) < until:
            query = signed_query(KEY, SECRET, "POST", PATH, BODY, timestamp=int(time.time()))
            (await http.post(f"http://127.0.0.1:{server.port}{PATH}?{query}", content=BODY)).raise_for_status()
            events += 1
            await asyncio.sleep(max(0.0, now + 1 / EVENTS_PER_S - time.monotonic()))
    return events


async def measure(*, has_session: bool) -> tuple[float, float]:
    """CPU per delivery in us, and memory per connection in kB, of a server of its own."""
    with (
        tempfile.TemporaryDirectory() as folder,
        reverb(Path(folder), "--workers", "1", reverb_app_max_connections=10_000) as server,
    ):
        pid = server.process.pid
        async with crowd(server, 200, has_session=has_session):
            before = resident_kb(pid)
            async with crowd(server, HELD, has_session=has_session):
                await asyncio.sleep(1)
                held = (resident_kb(pid) - before) / HELD
        async with crowd(server, CLIENTS, has_session=has_session):
            used = cpu_s([pid])
            events = await publish(server)
            return (cpu_s([pid]) - used) / (events * CLIENTS) * 1e6, held


async def main() -> None:
    rounds = [[await measure(has_session=has_session) for has_session in (False, True)] for _ in range(2)]
    for plain, session in rounds:
        print(
            f"{CLIENTS} clients, {EVENTS_PER_S} events/s: {plain[0]:.2f} us per delivery without sessions, "
            f"{session[0]:.2f} with: x {session[0] / plain[0]:.3f}; {plain[1]:.2f} and {session[1]:.2f} kB per "
            f"connection: {session[1] - plain[1]:+.2f}"
        )


asyncio.run(main())
