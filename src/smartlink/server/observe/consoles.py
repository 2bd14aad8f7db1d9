"""Live consoles: shares watches between operators who look at the same, and bounds what each may have waiting."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections import deque
from typing import Final

import msgspec
import structlog

from smartlink.background import ended
from smartlink.server.observe.agent import FLUSH_S
from smartlink.server.observe.gateway import Gateway
from smartlink.server.observe.records import Question, Told
from smartlink.server.observe.webhook_desk import Refused
from smartlink.server.runtime.feed import Batch, Feed, Filter

__all__ = ["MAX_CONSOLES", "Console", "Consoles"]

MAX_CONSOLES: Final = 32
MAX_WAITING: Final = 64
"""Batches that may wait for one console; a console that reads slower loses the oldest."""
RENEW_S: Final = 3.0
LEASE_S: Final = 10.0

_encode = msgspec.json.Encoder().encode
log = structlog.get_logger(__name__)


class _Line(msgspec.Struct):
    node: str
    entries: list[object]
    dropped: int


class Console:
    """One operator's view: lines of JSON, each with entries of one node and how many were dropped."""

    def __init__(self, shown: Filter) -> None:
        self.shown = shown
        self._waiting: deque[tuple[bytes, int]] = deque()
        self._lost = 0
        self._has_come = asyncio.Event()

    def put(self, line: bytes, entries: int) -> None:
        """Add a line; drop the oldest if too many wait."""
        if len(self._waiting) >= MAX_WAITING:
            self._lost += self._waiting.popleft()[1]
        self._waiting.append((line, entries))
        self._has_come.set()

    async def lines(self, wait_s: float) -> list[bytes]:
        """Return the lines that wait, after at most `wait_s` seconds; none if nothing came."""
        try:
            async with asyncio.timeout(wait_s):
                await self._has_come.wait()
        except TimeoutError:
            return []
        self._has_come.clear()
        lines = [line for line, _ in self._waiting]
        self._waiting.clear()
        if self._lost:
            lines.append(_encode(_Line("", [], self._lost)))
            self._lost = 0
        return lines


class Consoles:
    """All open consoles of this machine. `own_feed` is the feed of this process, if no node has it."""

    def __init__(self, gateway: Gateway, own_feed: Feed | None) -> None:
        self._gateway = gateway
        self._own_feed = own_feed
        self._watched: dict[Filter, tuple[str, list[Console]]] = {}
        self._by_id: dict[str, Filter] = {}
        self._task: asyncio.Task[None] | None = None
        self._is_stopping = False
        gateway.on_told = self._on_told

    def __len__(self) -> int:
        return sum(len(consoles) for _, consoles in self._watched.values())

    async def open(self, shown: Filter) -> Console:
        """Begin to watch. Raises Refused if too many consoles are open, or no node can be reached."""
        if len(self) >= MAX_CONSOLES:
            raise Refused(429, f"{MAX_CONSOLES} consoles are open already: close one")
        console = Console(shown)
        if shown not in self._watched:
            watch_id = secrets.token_hex(8)
            self._watched[shown] = (watch_id, [])
            self._by_id[watch_id] = shown
        watch_id, consoles = self._watched[shown]
        consoles.append(console)
        try:
            await self._renew(watch_id, shown)
        except BaseException:
            await self.close(console)
            raise
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run())
        return console

    async def close(self, console: Console) -> None:
        """Stop watching for this console."""
        watch_id, consoles = self._watched[console.shown]
        consoles.remove(console)
        if consoles:
            return
        del self._watched[console.shown], self._by_id[watch_id]
        if self._own_feed is not None:
            self._own_feed.unwatch(watch_id)
        if self._is_stopping:
            return
        with contextlib.suppress(Refused):  # its lease ends
            await self._gateway.ask(Question("unwatch", watch_id=watch_id))

    async def stop(self) -> None:
        """Stop watching. Consoles that close later do not ask the nodes, which may have stopped."""
        self._is_stopping = True
        await ended(self._task)

    async def _run(self) -> None:
        renewed_at = time.monotonic()
        while self._watched:
            await asyncio.sleep(FLUSH_S)
            if self._own_feed is not None:
                for watch_id, _, batch in self._own_feed.collect():
                    self._give(watch_id, "", batch)
            if time.monotonic() - renewed_at < RENEW_S:
                continue
            renewed_at = time.monotonic()
            for shown, (watch_id, _) in tuple(self._watched.items()):
                try:
                    await self._renew(watch_id, shown)
                except Refused as refused:
                    log.warning("a console cannot watch the nodes", reason=str(refused))

    async def _renew(self, watch_id: str, shown: Filter) -> None:
        if self._own_feed is not None:
            self._own_feed.watch(watch_id, shown, "", LEASE_S)
        replies = await self._gateway.ask(Question("watch", watch_id=watch_id, shown=shown))
        faults = [answer for answer in replies.answers if answer.fault]
        if faults and len(faults) == len(replies.answers):
            raise Refused(faults[0].status, faults[0].fault)

    def _on_told(self, told: Told) -> None:
        for watch_id, batch in told.batches.items():
            self._give(watch_id, told.node, batch)

    def _give(self, watch_id: str, node: str, batch: Batch) -> None:
        shown = self._by_id.get(watch_id)
        if shown is None:
            return
        line = _encode(_Line(node, list(batch.entries), batch.dropped))
        for console in self._watched[shown][1]:
            console.put(line, len(batch.entries))
