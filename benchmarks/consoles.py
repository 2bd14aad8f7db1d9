"""Does a ping notice that operators watch? Ten consoles, 5,000 events a second, and an unrelated client's ping.

    python benchmarks/consoles.py [--consoles 10] [--events 5000] [--rounds 6] [--seconds 4]

Phases without and with open consoles alternate, so that other work on the machine affects both. Prints the p99 of each
phase, and the median over the rounds of the ratio with to without. The server runs alone in a process, with one worker.
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

import httpx2

from smartlink.cli.doctor.socket import Socket
from smartlink.protocol.signing import signed_query

PORT, OPERATORS = 18_571, 18_572
BATCH = 10
SUBSCRIBERS = 4
PING_EVERY_S = 0.01


@contextlib.asynccontextmanager
async def server(folder: Path) -> AsyncIterator[None]:
    environment = os.environ | {
        "REVERB_SERVER_PORT": str(PORT),
        "REVERB_SERVER_RUNTIME_DIR": str(folder / "run"),
        "REVERB_METRICS_ENABLED": "true",
        "REVERB_METRICS_PORT": str(OPERATORS),
        "REVERB_WEBHOOK_QUEUE": "memory",
    }
    command = [str(Path(sys.executable).with_name("smartlink")), "reverb", "start", "--workers", "1"]
    process = await asyncio.create_subprocess_exec(
        *command, cwd=folder, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    assert process.stdout is not None
    try:
        while b"Realtime server:" not in await process.stdout.readline():
            assert process.returncode is None, "the server did not start"
        yield
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


async def read(socket: Socket) -> None:
    while True:
        await socket.receive()


async def publish(per_s: int) -> None:
    """Publish at a steady pace, as far as the server answers in time."""
    path = "/apps/1001/batch_events"
    body = json.dumps({"batch": [{"name": "tick", "channel": "load", "data": "x" * 100}] * BATCH}).encode()
    turn = time.monotonic()
    async with httpx2.AsyncClient(trust_env=False) as http:
        while True:
            query = signed_query("app-key", "app-secret", "POST", path, body, timestamp=int(time.time()))
            answer = await http.post(f"http://127.0.0.1:{PORT}{path}?{query}", content=body)
            assert answer.status_code == 200, answer.text
            turn = max(turn + BATCH / per_s, time.monotonic() - 0.1)
            await asyncio.sleep(max(0.0, turn - time.monotonic()))


async def watch(seen: list[int]) -> None:
    async with (
        httpx2.AsyncClient(trust_env=False, timeout=60) as http,
        http.stream("GET", f"http://127.0.0.1:{OPERATORS}/api/console") as answer,
    ):
        async for line in answer.aiter_lines():
            if line.startswith("data: "):
                batch = json.loads(line[6:])
                seen[0] += len(batch["entries"])
                seen[1] += batch["dropped"]


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
    with tempfile.TemporaryDirectory() as folder:
        async with server(Path(folder)), contextlib.AsyncExitStack() as stack:
            tasks = [asyncio.create_task(read(await connect(stack, "load"))) for _ in range(SUBSCRIBERS)]
            tasks += [asyncio.create_task(publish(events // 2)) for _ in range(2)]
            ping = await connect(stack, None)
            await pings(ping, 2)
            for number in range(rounds):
                without = p99(await pings(ping, seconds))
                seen = [0, 0]
                watching = [asyncio.create_task(watch(seen)) for _ in range(consoles)]
                await asyncio.sleep(1)
                with_them = p99(await pings(ping, seconds))
                for task in watching:
                    task.cancel()
                await asyncio.gather(*watching, return_exceptions=True)
                ratios.append(with_them / without)
                print(
                    f"round {number + 1}: p99 {without:.2f} ms without, {with_them:.2f} ms with {consoles} consoles; "
                    f"{seen[0] // consoles:,} entries shown to each, {seen[1] // consoles:,} counted as dropped"
                )
                await asyncio.sleep(0.5)
            faults = [task.exception() for task in tasks if task.done() and not task.cancelled()]
            assert not faults, faults
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
    print(f"ratio of p99, median of {rounds} rounds: {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--consoles", type=int, default=10)
    parser.add_argument("--events", type=int, default=5_000)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=4.0)
    given = parser.parse_args()
    asyncio.run(main(given.consoles, given.events, given.rounds, given.seconds))
