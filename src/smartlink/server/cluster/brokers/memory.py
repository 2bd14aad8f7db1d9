"""A single node: publications are delivered locally."""

from __future__ import annotations

from collections.abc import Sequence

from smartlink.server.cluster.brokers.base import Control, Deliver, Publication
from smartlink.server.cluster.brokers.log import ChannelLog

__all__ = ["MemoryBroker"]


class MemoryBroker:
    """A `Broker` within one process. Never waits or fails."""

    is_available = True

    def __init__(self, log: ChannelLog | None = None) -> None:
        self.log = ChannelLog() if log is None else log
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
        if isinstance(publication, Publication):
            if publication.retention is not None:
                publication = self.log.append(publication)
            if (publication.app_id, publication.channel) not in self._subscribed:
                return
        self._deliver(publication)

    async def retain(self, app_id: str, channel: str, ttl_s: float) -> int:
        return self.log.retain(app_id, channel, ttl_s)

    async def replay(self, app_id: str, channel: str, after: int | None) -> Sequence[Publication] | None:
        return self.log.replay(app_id, channel, after)

    async def stop(self) -> None:
        self._deliver = None
        self._subscribed.clear()
