"""What conflation saves: updates to many subscribers, with and without `conflate_ms`.

    python benchmarks/conflation.py [--subscribers 500] [--updates 1000] [--period 250] [--rounds 4] [--seconds 4]

Phases on a plain channel, on a conflated one and on one without subscribers alternate on one server, so that other work
on the machine affects all. Prints the server's CPU time per published update and the events per second that each
subscriber got in each phase, and the medians over the rounds of the ratios of CPU time with to without: of all of it,
and of delivery alone, without what publishing to nobody costs. The subscribers have a process of their own.

A server that cannot keep up joins more events into each write, which makes plain delivery cheaper. On a busy machine,
keep the updates per period and lower the rate: --updates 200 --period 1250.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

from consoles import OPERATORS, PORT, connect, cpu_s, drain, server

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from kit import processes
from smartlink.protocol.signing import signed_query

BATCH = 10
CHANNELS = ("prices.plain", "prices.conflated")
SETTINGS = {"REVERB_APP_MAX_CONNECTIONS": "100000", "REVERB_APP_PING_INTERVAL": "3600"}


async def publish(channel: str, per_s: int, seconds: float) -> int:
    """Publish at a steady pace, as far as the server answers in time. Returns how many updates."""
    path, count = "/apps/1001/batch_events", 0
    reader, writer = await asyncio.open_connection("127.0.0.1", PORT)
    began = turn = time.monotonic()
    while time.monotonic() - began < seconds:
        batch = [{"name": "price", "channel": channel, "data": f"{count + number:0100}"} for number in range(BATCH)]
        body = json.dumps({"batch": batch}).encode()
        query = signed_query("app-key", "app-secret", "POST", path, body, timestamp=int(time.time()))
        head = f"POST {path}?{query} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        answer = await reader.readuntil(b"\r\n\r\n")
        assert b" 200 " in answer, answer
        await reader.readexactly(len(b"{}"))
        count += BATCH
        turn = max(turn + BATCH / per_s, time.monotonic() - 0.1)
        await asyncio.sleep(max(0.0, turn - time.monotonic()))
    writer.close()
    return count


async def read(subscribers: int) -> None:
    """Subscribe to both channels, and look at nothing."""
    async with contextlib.AsyncExitStack() as stack:
        sockets = [await connect(stack, channel) for channel in CHANNELS for _ in range(subscribers)]
        print("ready", flush=True)
        await asyncio.gather(*(drain(socket._reader) for socket in sockets))  # noqa: SLF001 — unparsed


@contextlib.asynccontextmanager
async def readers(subscribers: int) -> AsyncIterator[None]:
    arguments = ["--role", "read", "--subscribers", str(subscribers)]
    process = await processes.spawn(
        sys.executable, __file__, *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    assert process.stdout is not None
    try:
        assert await process.stdout.readline() == b"ready\n", "the subscribers are not there"
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


async def deliveries() -> int:
    """How many events the server has delivered."""
    reader, writer = await asyncio.open_connection("127.0.0.1", OPERATORS)
    writer.write(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
    text = (await reader.read()).decode()
    writer.close()
    return int(float(text.split("\nsmartlink_deliveries_total ")[1].split("\n")[0]))


async def phase(pid: int, channel: str, arguments: argparse.Namespace) -> tuple[float, str]:
    """CPU time per update in seconds, and the phase in words."""
    cpu, delivered, began = cpu_s(pid), await deliveries(), time.monotonic()
    count = await publish(channel, arguments.updates, arguments.seconds)
    await asyncio.sleep(arguments.period / 1_000 + 0.2)  # until what waits has gone out
    seconds = time.monotonic() - began
    per_update = (cpu_s(pid) - cpu) / count
    each = (await deliveries() - delivered) / arguments.subscribers / seconds
    return per_update, f"{count / arguments.seconds:,.0f} updates/s, {per_update * 1e6:,.0f} us each, {each:,.1f} got/s"


async def main(arguments: argparse.Namespace) -> None:
    ratios: list[float] = []
    of_delivery: list[float] = []
    policies = [{"pattern": CHANNELS[1], "conflate_ms": arguments.period}]
    os.environ.update(SETTINGS | {"REVERB_APP_CHANNELS": json.dumps(policies)})
    with tempfile.TemporaryDirectory() as folder:
        async with server(Path(folder)) as pid, readers(arguments.subscribers):
            for number in range(1, arguments.rounds + 1):
                plain, first = await phase(pid, CHANNELS[0], arguments)
                conflated, second = await phase(pid, CHANNELS[1], arguments)
                to_nobody, _ = await phase(pid, "prices.empty", arguments)
                ratios.append(conflated / plain)
                of_delivery.append((conflated - to_nobody) / (plain - to_nobody))
                print(
                    f"round {number}: without {first}; with {second}; to nobody {to_nobody * 1e6:,.0f} us", flush=True
                )
    of_all, of_it = statistics.median(ratios), statistics.median(of_delivery)
    print(f"median ratio of CPU per update {of_all:.3f}, of delivery alone {of_it:.3f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--subscribers", type=int, default=500)
    parser.add_argument("--updates", type=int, default=1_000)
    parser.add_argument("--period", type=int, default=250)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--role", choices=["read"])
    given = parser.parse_args()
    asyncio.run(read(given.subscribers) if given.role == "read" else main(given))
