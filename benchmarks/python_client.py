"""How many events a second one `smartlink.client` takes in on one core, and whether its memory grows.

    python benchmarks/python_client.py [--events 200000] [--rounds 3]

A sender in a process of its own writes events of 120 bytes of data, each with an `eventId`, as fast as they are read.
In turn it is read by the client with a session (plain events, and as a class), by the client without, and by a loop
that does nothing but `websockets`' `recv` and `json.loads`: the bare minimum. Figures are events per second of the
reader's CPU, so that other load on the machine matters little, and the ratio to the minimum. Memory is that of the
reading process after a quarter of the events and at the end.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import hashlib
import json
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from multiprocessing import Process, Queue
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from websockets.asyncio.client import connect

from smartlink.client import Client

CHANNEL = "ticks"
AT_ONCE = 200
_MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class Tick(BaseModel):
    """What the events become."""

    n: int
    symbol: str
    text: str


def frame(event: dict[str, Any]) -> bytes:
    """Encode an event as a WebSocket frame of a server."""
    text = json.dumps(event, separators=(",", ":")).encode()
    head = bytes([0x81, len(text)]) if len(text) < 126 else bytes([0x81, 126]) + len(text).to_bytes(2, "big")
    return head + text


def tick(number: int) -> bytes:
    """One event."""
    data = {"n": number, "symbol": f"S{number % 50}", "text": "x" * 60, "eventId": number}
    return frame({"event": "tick", "channel": CHANNEL, "data": json.dumps(data)})


async def send(events: int, port: Queue[int]) -> None:
    """Greet each connection, and send it everything."""
    greeting = json.dumps({"socket_id": "1.1", "activity_timeout": 120})
    chunks = [b"".join(map(tick, range(first, first + AT_ONCE))) for first in range(0, events, AT_ONCE)]

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        key = next(line[18:].strip() for line in head.splitlines() if line.lower().startswith(b"sec-websocket-key:"))
        accept = base64.b64encode(hashlib.sha1(key + _MAGIC, usedforsecurity=False).digest())
        writer.write(
            b"HTTP/1.1 101 S\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %b\r\n\r\n" % accept
        )
        writer.write(frame({"event": "pusher:connection_established", "data": greeting}))
        await reader.read(1)  # the subscription
        writer.write(frame({"event": "pusher_internal:subscription_succeeded", "channel": CHANNEL, "data": "{}"}))
        for chunk in chunks:
            writer.write(chunk)
            await writer.drain()
        await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port.put(server.sockets[0].getsockname()[1])
    await server.serve_forever()


async def minimum(port: int, events: int, tell: Callable[[int], None]) -> None:
    """Read with `websockets` alone."""
    async with connect(f"ws://127.0.0.1:{port}/", compression=None, proxy=None) as socket:
        await socket.send('{"event":"pusher:subscribe","data":{"channel":"ticks"}}')
        count = 0
        while count < events:
            message = json.loads(await socket.recv())
            if message["event"] == "tick":
                json.loads(message["data"])
                count += 1
                tell(count)


async def by_client(port: int, events: int, tell: Callable[[int], None], *kinds: type, session: bool) -> None:
    """Read with the client; an event that is missing ends this with an error."""
    async with Client(f"ws://127.0.0.1:{port}", "key", session=session, namespace="", proxy=None) as client:
        channel = client.channel(CHANNEL)
        stream = channel.events({"tick": Tick}) if kinds else channel.events()
        count = 0
        async for event in stream:
            n = event.n if kinds else event.data["n"]  # type: ignore[union-attr] # a gap has neither, and is an error
            if n != count:
                raise RuntimeError(f"{n} instead of {count}")
            count += 1
            tell(count)
            if count == events:
                return


WAYS: dict[str, Callable[[int, int, Callable[[int], None]], Awaitable[None]]] = {
    "websockets and json alone": minimum,
    "client, no session": lambda port, events, tell: by_client(port, events, tell, session=False),
    "client": lambda port, events, tell: by_client(port, events, tell, session=True),
    "client, as a class": lambda port, events, tell: by_client(port, events, tell, Tick, session=True),
}


def resident_kb() -> int:
    """The memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4


def read(way: str, port: int, events: int, answer: Queue[tuple[float, int, int]]) -> None:
    """Read everything in one way, in a process of its own: events per CPU second, and memory."""
    memory: list[int] = []

    def tell(count: int) -> None:
        if count == events // 4:
            memory.append(resident_kb())

    began = time.process_time()
    asyncio.run(WAYS[way](port, events, tell))
    took = time.process_time() - began
    answer.put((events / took, memory[0], resident_kb()))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--events", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    port: Queue[int] = Queue()
    sender = Process(target=lambda: asyncio.run(send(given.events, port)), daemon=True)
    sender.start()
    bound = port.get(timeout=60)
    rates: dict[str, list[float]] = {way: [] for way in WAYS}
    growth: dict[str, list[int]] = {way: [] for way in WAYS}
    for _ in range(given.rounds):
        for way in WAYS:
            answer: Queue[tuple[float, int, int]] = Queue()
            reader = Process(target=read, args=(way, bound, given.events, answer), daemon=True)
            reader.start()
            rate, before, after = answer.get(timeout=300)
            reader.join()
            rates[way].append(rate)
            growth[way].append(after - before)
    least = statistics.median(rates["websockets and json alone"])
    for way, found in rates.items():
        rate = statistics.median(found)
        print(
            f"{way:<26} {rate:>8,.0f} events per CPU second, {rate / least:.2f} of the minimum; "
            f"memory grew by {max(growth[way]):,} kB over the last three quarters"
        )
    sender.terminate()


if __name__ == "__main__":
    sys.exit(main())
