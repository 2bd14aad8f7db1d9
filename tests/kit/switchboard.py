"""A switchboard with workers' lines to it, over real Unix sockets, in the test's own loop."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from kit.waiting import eventually
from smartlink.server.cluster.history.memory import MemoryHistory
from smartlink.server.cluster.idempotency.memory import MemoryIdempotency
from smartlink.server.cluster.presence.memory import MemoryPresence
from smartlink.server.webhooks.base import OutgoingEvent
from smartlink.server.workers.hub import WorkerHub, WorkerPeer
from smartlink.server.workers.parent_link import ParentLink


class Switchboard:
    """An exchange, its seats, and what it was told to post."""

    def __init__(self, max_app_bytes: int = 67_108_864) -> None:
        self.told: list[tuple[str, OutgoingEvent]] = []
        self.worker_hub = WorkerHub(
            presence=MemoryPresence(),
            history=MemoryHistory(keep=3, max_app_bytes=max_app_bytes),
            idempotency=MemoryIdempotency(max_app_bytes=max_app_bytes),
            tell=lambda app_id, event: self.told.append((app_id, event)),
        )
        self.peers: list[WorkerPeer] = []
        self.lines: list[ParentLink] = []

    async def line(self) -> ParentLink:
        """One more worker, ready."""
        here, there = socket.socketpair()
        peer = self.worker_hub.peer(here)
        line = ParentLink(there)
        self.peers.append(peer)
        self.lines.append(line)
        line.ready(dict)
        await eventually(lambda: peer.is_ready)
        return line

    def kill(self, line: ParentLink) -> None:
        """End a worker's line as its death would."""
        self.peers[self.lines.index(line)].close()


@asynccontextmanager
async def switchboard(max_app_bytes: int = 67_108_864) -> AsyncIterator[Switchboard]:
    running = Switchboard(max_app_bytes)
    try:
        yield running
    finally:
        for line in running.lines:
            await line.close()
        for peer in running.peers:
            peer.close()
