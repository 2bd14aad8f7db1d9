"""One subscription connection: receives channels of one server until it breaks, and detects when it does.

A killed subscription, or one whose packets are lost, looks like an idle one. So the connection also receives a
heartbeat, and silence ends it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable

from redis.asyncio.connection import Connection

from smartlink.background import ended

__all__ = ["Moved", "PubSubConnection"]

NAMES_PER_COMMAND = 200
SILENCE_S = 3.0
"""Without a heartbeat for this long, the connection counts as dead."""
LOOK_EVERY_S = 0.25

OnMessage = Callable[[str, bytes], None]


class Silence(OSError):
    """No heartbeat was received."""


class Moved(OSError):
    """A channel is no longer served here: its slot moved to another server."""


class PubSubConnection:
    """Subscriptions on one connection. `listen` runs until it raises; then the connection is finished."""

    def __init__(self, connection: Connection, heartbeat: str, on_message: OnMessage, *, is_sharded: bool) -> None:
        self._connection = connection
        self._heartbeat = heartbeat
        self._on_message = on_message
        self._names_per_command = 1 if is_sharded else NAMES_PER_COMMAND  # names in one command must share a slot
        self._verbs = ("SSUBSCRIBE", "SUNSUBSCRIBE") if is_sharded else ("SUBSCRIBE", "UNSUBSCRIBE")
        self._wanted: set[str] = set()
        self._outgoing: list[tuple[str, str]] = []
        self._awaited: dict[str, list[asyncio.Future[None]]] = {}
        self._wake = asyncio.Event()
        self._heard_at = time.monotonic()
        self.subscribe(heartbeat)

    def subscribe(self, name: str) -> asyncio.Future[None]:
        """Subscribe to a channel. The future completes when the subscription is active or the connection ends."""
        self._wanted.add(name)
        self._outgoing.append((self._verbs[0], name))
        self._wake.set()
        acknowledged: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._awaited.setdefault(name, []).append(acknowledged)
        return acknowledged

    def unsubscribe(self, name: str) -> None:
        self._wanted.discard(name)
        self._outgoing.append((self._verbs[1], name))
        self._wake.set()

    async def subscribed(self, names: Iterable[str]) -> None:
        """Subscribe to many channels and wait until all are active."""
        acknowledged = [self.subscribe(name) for name in names]
        if acknowledged:
            await asyncio.wait(acknowledged)

    async def listen(self) -> None:
        """Receive until the connection breaks, falls silent, or a channel moves away; then raise."""
        tasks = [asyncio.create_task(work) for work in (self._read(), self._write(), self._watch())]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            try:
                await ended(*tasks)
                await self._connection.disconnect(nowait=True)
            finally:
                for futures in self._awaited.values():
                    for future in futures:
                        if not future.done():
                            future.set_result(None)

    async def _read(self) -> None:
        while True:
            message = await self._connection.read_response(disable_decoding=True)
            if not isinstance(message, list) or len(message) != 3:
                raise ConnectionError("unexpected reply on a subscription")
            kind, name, payload = message
            channel = name.decode(errors="replace")
            if kind in (b"message", b"smessage"):
                if channel == self._heartbeat:
                    self._heard_at = time.monotonic()
                self._on_message(channel, payload)
            elif kind in (b"subscribe", b"ssubscribe"):
                waiting = self._awaited.get(channel)
                if waiting:
                    future = waiting.pop(0)
                    if not future.done():
                        future.set_result(None)
                    if not waiting:
                        del self._awaited[channel]
            elif kind == b"sunsubscribe" and channel in self._wanted and channel not in self._awaited:
                raise Moved(f"{channel} is now served by another server")

    async def _write(self) -> None:
        while True:
            while not self._outgoing:
                self._wake.clear()
                await self._wake.wait()
            outgoing, self._outgoing = self._outgoing, []
            packed: list[bytes] = []
            start = 0
            while start < len(outgoing):
                verb, end = outgoing[start][0], start + 1
                last = min(len(outgoing), start + self._names_per_command)
                while end < last and outgoing[end][0] == verb:
                    end += 1
                packed += self._connection.pack_command(verb, *(name for _, name in outgoing[start:end]))
                start = end
            await self._connection.send_packed_command(packed)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            if time.monotonic() - self._heard_at > SILENCE_S:
                raise Silence(f"no heartbeat for {SILENCE_S:g} s")
