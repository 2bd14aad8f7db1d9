"""Engines shared by many nodes in one process, which wait or fail on demand."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from smartlink.protocol.session import PresenceMember
from smartlink.server.cluster.brokers.base import BrokerUnavailable, Control, Deliver, Publication
from smartlink.server.cluster.brokers.log import ChannelLog
from smartlink.server.cluster.history.base import HistoryEntry
from smartlink.server.cluster.history.memory import MemoryHistory
from smartlink.server.cluster.idempotency.memory import MemoryIdempotency
from smartlink.server.cluster.presence.base import Arrival, ChannelCount, ChannelState
from smartlink.server.cluster.presence.memory import MemoryPresence
from smartlink.server.cluster.sessions.memory import MemorySessions
from smartlink.server.run.engines import Engines


class Gate:
    """Lets callers through until it is shut; then they wait until it opens."""

    def __init__(self) -> None:
        self._open = asyncio.Event()
        self._open.set()
        self.waiting = 0

    def shut(self) -> None:
        self._open.clear()

    def open(self) -> None:
        self._open.set()

    async def passed(self) -> None:
        self.waiting += 1
        try:
            await self._open.wait()
        finally:
            self.waiting -= 1


class Between:
    """What lies between the nodes of a test: `is_away` cuts it, the gates hold its answers back."""

    def __init__(self) -> None:
        self.is_away = False
        self.joining = Gate()
        """Waited at by `PresenceStore.join`, after it has taken effect."""
        self.reading = Gate()
        """Waited at by `PresenceStore.members`, `state` and `count`, after what they answer was read."""
        self.admitting = Gate()
        """Waited at by `PresenceStore.take_place`, after what it answers was decided."""
        self.claiming = Gate()
        """Waited at by `IdempotencyStore.complete`, before it takes effect."""
        self.nodes: list[SharedBroker] = []
        self.presence = SharedPresence(self)
        self.history = SharedHistory(self)
        self.idempotency = SharedIdempotency(self)
        self.sessions = SharedSessions(self)
        self.log = ChannelLog()

    def engines(self) -> Engines:
        """The engines of one more node."""
        broker = SharedBroker(self)
        self.nodes.append(broker)
        return Engines(broker, self.presence, self.history, self.idempotency, self.sessions)

    def check(self) -> None:
        if self.is_away:
            raise BrokerUnavailable("cut by the test")


class SharedBroker:
    """A `Broker` of several nodes in one process."""

    def __init__(self, between: Between) -> None:
        self._between = between
        self._deliver: Deliver | None = None
        self.subscribed: set[tuple[str, str]] = set()

    @property
    def is_available(self) -> bool:
        return not self._between.is_away

    async def start(self, deliver: Deliver) -> None:
        self._deliver = deliver

    async def subscribe(self, app_id: str, channel: str) -> None:
        self.subscribed.add((app_id, channel))

    async def unsubscribe(self, app_id: str, channel: str) -> None:
        self.subscribed.discard((app_id, channel))

    async def publish(self, publication: Publication | Control) -> None:
        nodes = self._between.nodes
        if isinstance(publication, Publication) and not self._between.is_away:
            publication = self._between.log.append(publication)
        if self._between.is_away:
            if isinstance(publication, Control) or not publication.is_live:
                self._between.check()
            nodes = [self]
        for node in nodes:
            if node._deliver is not None and (
                isinstance(publication, Control) or (publication.app_id, publication.channel) in node.subscribed
            ):
                node._deliver(publication)

    async def retain(self, app_id: str, channel: str, ttl_s: float) -> int:
        self._between.check()
        return self._between.log.retain(app_id, channel, ttl_s)

    async def replay(self, app_id: str, channel: str, after: int | None) -> Sequence[Publication] | None:
        self._between.check()
        return self._between.log.replay(app_id, channel, after)

    async def stop(self) -> None:
        self._deliver = None
        self.subscribed.clear()


class SharedSessions(MemorySessions):
    def __init__(self, between: Between) -> None:
        super().__init__()
        self._between = between

    async def take(self, app_id: str, name: str, owner: str) -> bytes | None:
        self._between.check()
        return await super().take(app_id, name, owner)

    async def save(self, app_id: str, name: str, owner: str, content: bytes, ttl_s: float) -> bool:
        self._between.check()
        return await super().save(app_id, name, owner, content, ttl_s)


class SharedPresence(MemoryPresence):
    def __init__(self, between: Between) -> None:
        super().__init__()
        self._between = between

    async def join(
        self, app_id: str, channel: str, socket_id: str, member: PresenceMember | None, grace_s: int = 0
    ) -> Arrival:
        arrival = await super().join(app_id, channel, socket_id, member, grace_s)
        await self._between.joining.passed()
        return arrival

    async def members(self, app_id: str, channel: str) -> Sequence[PresenceMember]:
        members = await super().members(app_id, channel)
        await self._between.reading.passed()
        return members

    async def state(self, app_id: str, channel: str) -> ChannelState:
        state = await super().state(app_id, channel)
        await self._between.reading.passed()
        return state

    async def count(self, app_id: str, channel: str) -> ChannelCount:
        count = await super().count(app_id, channel)
        await self._between.reading.passed()
        return count

    async def take_place(self, app_id: str, here: int, most: int) -> bool:
        is_taken = await super().take_place(app_id, here, most)
        await self._between.admitting.passed()
        return is_taken

    async def stop(self) -> None:
        """Other nodes may still be there."""


class SharedHistory(MemoryHistory):
    def __init__(self, between: Between) -> None:
        super().__init__()
        self._between = between

    async def append(self, app_id: str, channel: str, frame: bytes, ttl_s: float) -> int:
        self._between.check()
        return await super().append(app_id, channel, frame, ttl_s)

    async def latest(self, app_id: str, channel: str) -> HistoryEntry | None:
        self._between.check()
        entry = await super().latest(app_id, channel)
        await self._between.reading.passed()
        return entry


class SharedIdempotency(MemoryIdempotency):
    def __init__(self, between: Between) -> None:
        super().__init__()
        self._between = between

    async def claim(self, app_id: str, key: str) -> bytes | None:
        self._between.check()
        return await super().claim(app_id, key)

    async def complete(self, app_id: str, key: str, answer: bytes) -> None:
        await self._between.claiming.passed()
        await super().complete(app_id, key, answer)
