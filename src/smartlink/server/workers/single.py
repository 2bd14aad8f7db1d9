"""The engines of a server of one process, which is its own worker hub.

They are memory engines as long as no worker has connected. During a restart they join the process that ends and its
successor: publications go both ways, counts and members include both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from smartlink.server.cluster.brokers.base import Control, Deliver, Publication
from smartlink.server.cluster.brokers.memory import MemoryBroker
from smartlink.server.cluster.presence.base import Change, OnChange
from smartlink.server.cluster.presence.memory import MemoryPresence
from smartlink.server.cluster.sessions.memory import MemorySessions
from smartlink.server.runtime.rates import Totals
from smartlink.server.workers.hub import WorkerHub

__all__ = ["SingleBroker", "SingleOverview", "SinglePresence", "SingleSessions"]


class SingleBroker(MemoryBroker):
    """The `Broker` of the hub's local node."""

    def __init__(self, worker_hub: WorkerHub, presence: SinglePresence) -> None:
        super().__init__(worker_hub.log)
        self._worker_hub = worker_hub
        self._presence = presence

    async def start(self, deliver: Deliver) -> None:
        await super().start(deliver)
        self._worker_hub.local_node = self

    async def publish(self, publication: Publication | Control) -> None:
        if self._worker_hub.peers:
            self._worker_hub.take_ordered()
            if isinstance(publication, Publication):
                publication = self.log.append(publication)
            self._worker_hub.route(publication)
        await super().publish(publication)

    async def stop(self) -> None:
        self._worker_hub.local_node = None
        await super().stop()

    # What the hub calls

    def deliver(self, publication: Publication | Control) -> None:
        if self._deliver is not None:
            self._deliver(publication)

    def is_subscribed(self, app_id: str, channel: str) -> bool:
        return (app_id, channel) in self._subscribed

    def on_change(self, change: Change) -> None:
        self._presence.announce(change)


class SinglePresence(MemoryPresence):
    """The `PresenceStore` of the hub's local node; the hub enters its workers' connections into the same store."""

    def __init__(self) -> None:
        super().__init__()
        self._worker_hub: WorkerHub | None = None
        self._on_change: OnChange | None = None

    def use(self, worker_hub: WorkerHub) -> None:
        """Report to `worker_hub` from now on."""
        self._worker_hub = worker_hub

    async def start(self, on_change: OnChange) -> None:
        self._on_change = on_change

    def announce(self, change: Change) -> None:
        """Hand a change to the local node."""
        if self._on_change is not None:
            self._on_change(change)

    def report_connections(self, app_id: str, connections: int) -> None:
        if self._worker_hub is not None:
            self._worker_hub.report_local_connections(app_id, connections)

    def connections_elsewhere(self, app_id: str) -> int:
        return 0 if self._worker_hub is None else self._worker_hub.connections_elsewhere(app_id)

    async def nodes(self) -> int:
        return 1 if self._worker_hub is None else max(1, self._worker_hub.workers())

    async def stop(self) -> None:
        """Drop the callback: this node's entries left with its connections, and those of workers stay."""
        self._on_change = None


class SingleSessions:
    """The `SessionStore` of the hub's local node.

    What an open session holds stays with it until it ends, or until a worker takes it: a copy would be lost with it.
    """

    def __init__(self, worker_hub: WorkerHub, sessions: MemorySessions) -> None:
        """`sessions` are those of the hub."""
        self._worker_hub = worker_hub
        self._sessions = sessions

    def ask_for_open(self, give_up: Callable[[str, str], bytes | None]) -> bool:
        self._worker_hub.local_sessions = give_up
        return True

    async def take(self, app_id: str, name: str, owner: str) -> bytes | None:
        return self._sessions.withdraw(app_id, name)

    async def save(self, app_id: str, name: str, owner: str, content: bytes, ttl_s: float) -> bool:
        return await self._sessions.save(app_id, name, owner, content, ttl_s)

    async def revoke(self, app_id: str, subject: str, ttl_s: float) -> None:
        await self._sessions.revoke(app_id, subject, ttl_s)

    async def marks(self, app_id: str, subjects: Sequence[str]) -> Sequence[int]:
        return await self._sessions.marks(app_id, subjects)


class SingleOverview:
    """The `MachineOverview` of a server that is its own worker hub."""

    def __init__(self, worker_hub: WorkerHub) -> None:
        self._worker_hub = worker_hub

    async def totals(self) -> Totals:
        return self._worker_hub.totals()
