"""A single node: publications are delivered locally."""

from __future__ import annotations

from smartlink.server.cluster.brokers.base import Control, Deliver, Publication

__all__ = ["MemoryBroker"]


class MemoryBroker:
    """A `Broker` within one process. Never waits or fails."""

    is_available = True

    def __init__(self) -> None:
        self._deliver: Deliver | None = None
        self._subscribed: set[tuple[str, str]] = set()

    async def start(self, deliver: Deliver) -> None:
        self._deliver = deliver

    async def subscribe(self, app_id: str, channel: str) -> None:
        self._subscribed.add((app_id, channel))

    async def unsubscribe(self, app_id: str, channel: str) -> None:
        self._subscribed.discard((app_id, channel))

    async def publish(self, publication: Publication | Control) -> None:
        if self._deliver is None:
            return
        if isinstance(publication, Control) or (publication.app_id, publication.channel) in self._subscribed:
            self._deliver(publication)

    async def stop(self) -> None:
        self._deliver = None
        self._subscribed.clear()
