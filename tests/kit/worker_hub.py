"""A worker hub and workers' links to it, over real Unix sockets, in the test's own event loop."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from kit.waiting import eventually
from smartlink.server.cluster.brokers.log import ChannelLog
from smartlink.server.cluster.history.memory import MemoryHistory
from smartlink.server.cluster.idempotency.memory import MemoryIdempotency
from smartlink.server.cluster.presence.memory import MemoryPresence
from smartlink.server.cluster.sessions.memory import MemorySessions
from smartlink.server.webhooks.base import OutgoingEvent
from smartlink.server.workers.hub import WorkerHub
from smartlink.server.workers.parent_link import ParentLink
from smartlink.server.workers.peer import WorkerPeer

__all__ = ["Workers", "workers"]


class Workers:
    """A hub, its workers, and the webhook events that they had sent."""

    def __init__(self, max_app_bytes: int = 67_108_864, log_bytes: int = 33_554_432) -> None:
        self.webhook_events: list[tuple[str, OutgoingEvent]] = []
        self.hub = WorkerHub(
            presence=MemoryPresence(),
            history=MemoryHistory(keep=3, max_app_bytes=max_app_bytes),
            idempotency=MemoryIdempotency(max_app_bytes=max_app_bytes),
            sessions=MemorySessions(max_app_bytes=max_app_bytes),
            log=ChannelLog(log_bytes),
            emit=lambda app_id, event: self.webhook_events.append((app_id, event)),
        )
        self.peers: list[WorkerPeer] = []
        self.links: list[ParentLink] = []

    async def link(self) -> ParentLink:
        """Add a worker, and return its link when it is ready."""
        here, there = socket.socketpair()
        peer = self.hub.peer(here)
        link = ParentLink(there, self.hub.order_end().dup())
        self.peers.append(peer)
        self.links.append(link)
        link.ready(dict)
        await eventually(lambda: peer.is_ready)
        return link

    def kill(self, link: ParentLink) -> None:
        """End a worker's link as its death would."""
        self.peers[self.links.index(link)].close()


@asynccontextmanager
async def workers(max_app_bytes: int = 67_108_864, log_bytes: int = 33_554_432) -> AsyncIterator[Workers]:
    running = Workers(max_app_bytes, log_bytes)
    try:
        yield running
    finally:
        for link in running.links:
            await link.close()
        for peer in running.peers:
            peer.close()
        running.hub.close()
