"""A worker's engines: each port forwards its calls to the worker hub."""

from __future__ import annotations

import math
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any, TypeVar, TypeVarTuple

from smartlink.protocol.names import is_cache
from smartlink.protocol.session import PresenceMember
from smartlink.server.apps.base import App
from smartlink.server.cluster.brokers.base import Broker, BrokerUnavailable, Control, Deliver, Publication
from smartlink.server.cluster.history.base import History, HistoryEntry
from smartlink.server.cluster.idempotency.base import IdempotencyStore
from smartlink.server.cluster.presence.base import (
    Arrival,
    ChannelCount,
    ChannelState,
    Departure,
    OnChange,
    PresenceStore,
)
from smartlink.server.cluster.sessions.base import SessionStore
from smartlink.server.runtime.rates import MachineOverview, Totals
from smartlink.server.webhooks.base import OutgoingEvent
from smartlink.server.workers.calls import WebhookRelay
from smartlink.server.workers.order import TooLarge
from smartlink.server.workers.parent_link import ANSWER_S, ParentLink

__all__ = [
    "ForwardedWebhooks",
    "WorkerBroker",
    "WorkerHistory",
    "WorkerIdempotency",
    "WorkerOverview",
    "WorkerPresence",
    "WorkerSessions",
]

T = TypeVar("T")
Arguments = TypeVarTuple("Arguments")


class WorkerBroker:
    """A `Broker` over the parent link."""

    def __init__(self, parent_link: ParentLink) -> None:
        self._link = parent_link
        self._subscribed: set[tuple[str, str]] = set()

    @property
    def is_available(self) -> bool:
        return self._link.is_up

    async def start(self, deliver: Deliver) -> None:
        def take(publication: Publication | Control) -> None:
            # Some may have been on their way when the channel was left.
            if isinstance(publication, Control) or (publication.app_id, publication.channel) in self._subscribed:
                deliver(publication)

        self._link.deliver = take

    async def subscribe(self, app_id: str, channel: str) -> None:
        if (app_id, channel) not in self._subscribed:
            self._subscribed.add((app_id, channel))
            # Publications go another way, on which they could overtake this.
            with suppress(BrokerUnavailable):
                await self._link.call(Broker.subscribe, app_id, channel)

    async def unsubscribe(self, app_id: str, channel: str) -> None:
        if (app_id, channel) in self._subscribed:
            self._subscribed.discard((app_id, channel))
            self._link.notify(Broker.unsubscribe, app_id, channel)

    async def publish(self, publication: Publication | Control) -> None:
        """Return when a durable publication or a control has its place: what any worker publishes then is later.

        A live publication is not waited for, and is dropped while the hub does not keep up.
        """
        link = self._link
        if isinstance(publication, Control):
            await link.publish(publication)
        elif not link.is_up:
            if not publication.is_live:
                raise BrokerUnavailable("The parent process is gone")
            if link.deliver is not None:
                link.deliver(publication)
        elif not (publication.is_live and link.is_swamped):
            await self._order(publication)

    async def _order(self, publication: Publication) -> None:
        link, is_live = self._link, publication.is_live
        # Events of cache channels go the way that calls go: they are kept and published in one step.
        if not is_cache(publication.channel):
            try:
                place = link.order(publication)
            except TooLarge:
                is_live = False
            else:
                if place is not None:
                    if is_live:
                        place.cancel()  # nobody waits for it; it is sent all the same
                    else:
                        await place
                return
        if is_live:
            link.publish_live(publication)
        else:
            await link.publish(publication)

    async def retain(self, app_id: str, channel: str, ttl_s: float) -> int:
        return await self._link.call(Broker.retain, app_id, channel, ttl_s)

    async def replay(self, app_id: str, channel: str, after: int | None) -> Sequence[Publication] | None:
        return await self._link.call(Broker.replay, app_id, channel, after)

    async def stop(self) -> None:
        self._link.deliver = None
        for app_id, channel in tuple(self._subscribed):
            await self.unsubscribe(app_id, channel)


class WorkerPresence:
    """A `PresenceStore` over the parent link. Without a parent it is empty: the process is about to end."""

    def __init__(self, parent_link: ParentLink) -> None:
        self._link = parent_link

    async def _call(
        self,
        default: T,
        method: Callable[[Any, *Arguments], Coroutine[Any, Any, T]],
        *arguments: *Arguments,
        answer_s: float = ANSWER_S,
    ) -> T:
        try:
            return await self._link.call(method, *arguments, answer_s=answer_s)
        except BrokerUnavailable:
            return default

    async def start(self, on_change: OnChange) -> None:
        self._link.on_change = on_change

    async def join(
        self, app_id: str, channel: str, socket_id: str, member: PresenceMember | None, grace_s: int = 0
    ) -> Arrival:
        # A parent that is merely slow still carries it out: giving up would leave an entry that nobody removes.
        absent = Arrival(False, False, 1)
        arguments = (app_id, channel, socket_id, member, grace_s)
        return await self._call(absent, PresenceStore.join, *arguments, answer_s=math.inf)

    async def leave(self, app_id: str, channel: str, socket_id: str) -> Departure:
        absent = Departure(False, False, 0)
        return await self._call(absent, PresenceStore.leave, app_id, channel, socket_id, answer_s=math.inf)

    async def members(self, app_id: str, channel: str) -> Sequence[PresenceMember]:
        return (await self.state(app_id, channel)).members

    async def state(self, app_id: str, channel: str) -> ChannelState:
        return await self._call(ChannelState(0, 0), PresenceStore.state, app_id, channel)

    async def change(self, app_id: str, channel: str, user_id: str, user_info: bytes) -> PresenceMember | None:
        return await self._call(None, PresenceStore.change, app_id, channel, user_id, user_info)

    def note(self, app_id: str, channel: str, user_id: str, user_info: bytes) -> None:
        """Do nothing: the hub knows already."""

    async def count(self, app_id: str, channel: str) -> ChannelCount:
        return await self._call(ChannelCount(0, 0), PresenceStore.count, app_id, channel)

    async def channels(self, app_id: str, prefix: str = "") -> dict[str, ChannelCount]:
        return await self._call({}, PresenceStore.channels, app_id, prefix)

    def report_connections(self, app_id: str, connections: int) -> None:
        self._link.report_connections(app_id, connections)

    def connections_elsewhere(self, app_id: str) -> int:
        return self._link.elsewhere.get(app_id, 0)

    async def count_elsewhere(self, app_id: str) -> int:
        return self.connections_elsewhere(app_id)

    async def take_place(self, app_id: str, here: int, most: int) -> bool:
        return here + self.connections_elsewhere(app_id) < most

    async def nodes(self) -> int:
        return await self._call(1, PresenceStore.nodes)

    async def stop(self) -> None:
        self._link.on_change = None
        self._link.notify(PresenceStore.stop)


class WorkerHistory:
    """A `History` over the parent link."""

    def __init__(self, parent_link: ParentLink) -> None:
        self._link = parent_link

    async def append(self, app_id: str, channel: str, frame: bytes, ttl_s: float) -> int:
        return await self._link.call(History.append, app_id, channel, frame, ttl_s)

    async def latest(self, app_id: str, channel: str) -> HistoryEntry | None:
        return await self._link.call(History.latest, app_id, channel)

    async def since(self, app_id: str, channel: str, position: int) -> Sequence[HistoryEntry] | None:
        return await self._link.call(History.since, app_id, channel, position)


class WorkerIdempotency:
    """An `IdempotencyStore` over the parent link."""

    def __init__(self, parent_link: ParentLink) -> None:
        self._link = parent_link

    async def claim(self, app_id: str, key: str) -> bytes | None:
        return await self._link.call(IdempotencyStore.claim, app_id, key)

    async def complete(self, app_id: str, key: str, answer: bytes) -> None:
        self._link.notify(IdempotencyStore.complete, app_id, key, answer)

    async def release(self, app_id: str, key: str) -> None:
        self._link.notify(IdempotencyStore.release, app_id, key)


class WorkerSessions:
    """A `SessionStore` over the parent link."""

    def __init__(self, parent_link: ParentLink) -> None:
        self._link = parent_link

    def ask_for_open(self, give_up: Callable[[str, str], bytes | None]) -> bool:
        return False

    async def take(self, app_id: str, name: str, owner: str) -> bytes | None:
        return await self._link.call(SessionStore.take, app_id, name, owner)

    async def save(self, app_id: str, name: str, owner: str, content: bytes, ttl_s: float) -> bool:
        return await self._link.call(SessionStore.save, app_id, name, owner, content, ttl_s)

    async def revoke(self, app_id: str, subject: str, ttl_s: float) -> None:
        await self._link.call(SessionStore.revoke, app_id, subject, ttl_s)

    async def marks(self, app_id: str, subjects: Sequence[str]) -> Sequence[int]:
        return await self._link.call(SessionStore.marks, app_id, subjects)


class ForwardedWebhooks:
    """A `WebhookSink` that leaves delivery to the parent, in order with joins and leaves."""

    def __init__(self, parent_link: ParentLink) -> None:
        self._link = parent_link

    def emit(self, app: App, event: OutgoingEvent) -> None:
        if app.webhooks:
            self._link.notify(WebhookRelay.emit, app.id, event)


class WorkerOverview:
    """The `MachineOverview` over the parent link: figures of all workers."""

    def __init__(self, parent_link: ParentLink) -> None:
        self._link = parent_link

    async def totals(self) -> Totals:
        try:
            return await self._link.call(MachineOverview.totals)
        except BrokerUnavailable:
            return Totals(1, 0.0, {})
