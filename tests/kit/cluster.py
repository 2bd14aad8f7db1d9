"""Several nodes in one process, with shared engines that can be cut off."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from smartlink.server.cluster.brokers.base import BrokerUnavailable, Control, Deliver, Publication
from smartlink.server.cluster.brokers.log import ChannelLog
from smartlink.server.cluster.history.memory import MemoryHistory
from smartlink.server.cluster.idempotency.memory import MemoryIdempotency
from smartlink.server.cluster.presence.base import OnChange
from smartlink.server.cluster.presence.memory import MemoryPresence
from smartlink.server.cluster.sessions.memory import MemorySessions
from smartlink.server.run.bootstrap import build
from smartlink.server.run.engines import Engines
from smartlink.server.run.lifecycle import RealtimeServer
from smartlink.server.settings.config import ServerSettings

__all__ = ["Cluster", "cluster"]


class SharedPresence(MemoryPresence):
    """One presence store for all nodes; each answer takes a turn of the loop, as over a network."""

    async def start(self, on_change: OnChange) -> None: ...

    async def count(self, app_id: str, channel: str) -> Any:
        await asyncio.sleep(0)
        return await super().count(app_id, channel)

    async def stop(self) -> None: ...


class NodeBroker:
    """One node's broker. Away, it raises and hears nothing."""

    def __init__(self, cluster: Cluster) -> None:
        self.is_available = True
        self.deliver: Deliver | None = None
        self.subscribed: set[tuple[str, str]] = set()
        self._cluster = cluster

    async def start(self, deliver: Deliver) -> None:
        self.deliver = deliver

    async def subscribe(self, app_id: str, channel: str) -> None:
        await asyncio.sleep(0)
        self.subscribed.add((app_id, channel))

    async def unsubscribe(self, app_id: str, channel: str) -> None:
        self.subscribed.discard((app_id, channel))

    async def publish(self, publication: Publication | Control) -> None:
        await asyncio.sleep(0)
        if not self.is_available:
            raise BrokerUnavailable
        if isinstance(publication, Publication):
            publication = self._cluster.log.append(publication)
        for broker in self._cluster.brokers:
            is_wanted = isinstance(publication, Control) or (
                (publication.app_id, publication.channel) in broker.subscribed
            )
            if broker.deliver is not None and broker.is_available and is_wanted:
                broker.deliver(publication)

    async def retain(self, app_id: str, channel: str, ttl_s: float) -> int:
        return self._cluster.log.retain(app_id, channel, ttl_s)

    async def replay(self, app_id: str, channel: str, after: int | None) -> Sequence[Publication] | None:
        return self._cluster.log.replay(app_id, channel, after)

    async def stop(self) -> None:
        self.deliver = None


class Cluster:
    def __init__(self) -> None:
        self.brokers: list[NodeBroker] = []
        self.presence = SharedPresence()
        self.sessions = MemorySessions()
        self.log = ChannelLog()
        self.nodes: list[RealtimeServer] = []

    def build(self, **settings: Any) -> RealtimeServer:
        broker = NodeBroker(self)
        self.brokers.append(broker)
        engines = Engines(broker, self.presence, MemoryHistory(), MemoryIdempotency(), self.sessions)
        values = {"reverb_server_port": 0, "reverb_server_drain_seconds": 0.2} | settings
        return build(ServerSettings(_env_file=None, **values), engines=engines)


@asynccontextmanager
async def cluster(size: int = 2, **settings: Any) -> AsyncIterator[Cluster]:
    """`size` nodes, started."""
    made = Cluster()
    async with AsyncExitStack() as stack:
        for _ in range(size):
            node = made.build(**settings)
            made.nodes.append(node)
            await node.start()
            stack.push_async_callback(node.stop)
        yield made
