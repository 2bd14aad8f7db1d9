"""A switchboard with workers' lines to it, over real Unix sockets, in the test's own loop."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from kit.waiting import eventually
from smartlink.server.cluster.history.memory import MemoryHistory
from smartlink.server.cluster.idempotency.memory import MemoryReceipts
from smartlink.server.cluster.presence.memory import MemoryRoster
from smartlink.server.webhooks.base import WebhookEvent
from smartlink.server.workers.hub import Exchange, Seat
from smartlink.server.workers.parent_link import Line


class Switchboard:
    """An exchange, its seats, and what it was told to post."""

    def __init__(self, max_app_bytes: int = 67_108_864) -> None:
        self.told: list[tuple[str, WebhookEvent]] = []
        self.exchange = Exchange(
            roster=MemoryRoster(),
            history=MemoryHistory(keep=3, max_app_bytes=max_app_bytes),
            receipts=MemoryReceipts(max_app_bytes=max_app_bytes),
            tell=lambda app_id, event: self.told.append((app_id, event)),
        )
        self.seats: list[Seat] = []
        self.lines: list[Line] = []

    async def line(self) -> Line:
        """One more worker, ready."""
        here, there = socket.socketpair()
        seat = self.exchange.seat(here)
        line = Line(there)
        self.seats.append(seat)
        self.lines.append(line)
        line.ready(dict)
        await eventually(lambda: seat.is_ready)
        return line

    def kill(self, line: Line) -> None:
        """End a worker's line as its death would."""
        self.seats[self.lines.index(line)].close()


@asynccontextmanager
async def switchboard(max_app_bytes: int = 67_108_864) -> AsyncIterator[Switchboard]:
    running = Switchboard(max_app_bytes)
    try:
        yield running
    finally:
        for line in running.lines:
            await line.close()
        for seat in running.seats:
            seat.close()
