"""A worker's engines: each port carried over its line to the switchboard."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from smartlink.protocol.session import PresenceMember
from smartlink.server.apps.base import App
from smartlink.server.cluster.brokers.base import BrokerUnavailable, Control, Deliver, Publication
from smartlink.server.cluster.history.base import HistoryEntry
from smartlink.server.cluster.idempotency.base import CallUnderWay
from smartlink.server.cluster.presence.base import Arrival, ChannelCount, ChannelState, Departure, OnChange
from smartlink.server.runtime.rates import Totals
from smartlink.server.webhooks.base import OutgoingEvent
from smartlink.server.workers import messages as say
from smartlink.server.workers.parent_link import ParentLink

__all__ = [
    "ForwardedWebhooks",
    "WorkerBroker",
    "WorkerHistory",
    "WorkerIdempotency",
    "WorkerOverview",
    "WorkerPresence",
]


class WorkerBroker:
    """A `Broker` over the line."""

    def __init__(self, line: ParentLink) -> None:
        self._line = line
        self._subscribed: set[tuple[str, str]] = set()

    @property
    def is_available(self) -> bool:
        return self._line.is_up

    async def start(self, deliver: Deliver) -> None:
        self._line.deliver = deliver

    async def subscribe(self, app_id: str, channel: str) -> None:
        if (app_id, channel) not in self._subscribed:
            self._subscribed.add((app_id, channel))
            self._line.tell(say.Subscribe(app_id, channel))

    async def unsubscribe(self, app_id: str, channel: str) -> None:
        if (app_id, channel) in self._subscribed:
            self._subscribed.discard((app_id, channel))
            self._line.tell(say.Unsubscribe(app_id, channel))

    async def publish(self, publication: Publication | Control) -> None:
        """What is durable, and a control, is waited for: who publishes next, at another worker, comes after it.

        What is live is a write; it falls away while the switchboard does not keep up.
        """
        line = self._line
        if isinstance(publication, Control):
            await line.ask(lambda number: _signal(number, publication))
        elif not publication.is_live:
            await line.ask(lambda number: _publish(number, publication))
        elif line.is_up:
            if not line.is_swamped:
                line.tell(_publish(0, publication))
        elif line.deliver is not None:
            line.deliver(publication)

    async def stop(self) -> None:
        self._line.deliver = None
        for app_id, channel in tuple(self._subscribed):
            await self.unsubscribe(app_id, channel)


def _signal(number: int, control: Control) -> say.Signal:
    return say.Signal(number, control.app_id, control.action, control.target, control.data)


def _publish(number: int, publication: Publication) -> say.Publish:
    return say.Publish(
        number,
        publication.app_id,
        publication.channel,
        publication.frame,
        publication.except_socket,
        publication.is_live,
        publication.version,
    )


class WorkerPresence:
    """A `PresenceStore` over the line. With the switchboard gone, it knows of nobody: the process is about to end."""

    def __init__(self, line: ParentLink) -> None:
        self._line = line

    async def start(self, on_change: OnChange) -> None:
        self._line.on_change = on_change

    async def join(self, app_id: str, channel: str, socket_id: str, member: PresenceMember | None) -> Arrival:
        try:
            arrived = await self._line.join(app_id, channel, socket_id, member)
        except BrokerUnavailable:
            return Arrival(False, False, 1)
        return replace(arrived.arrival, members=arrived.members or ())

    async def leave(self, app_id: str, channel: str, socket_id: str) -> Departure:
        try:
            departed: say.Departed = await self._line.ask(lambda n: say.Leave(n, app_id, channel, socket_id), math.inf)
        except BrokerUnavailable:
            return Departure(False, False, 0)
        return departed.departure

    async def members(self, app_id: str, channel: str) -> Sequence[PresenceMember]:
        return (await self.state(app_id, channel)).members

    async def state(self, app_id: str, channel: str) -> ChannelState:
        try:
            present: say.Present = await self._line.ask(lambda n: say.Members(n, app_id, channel))
        except BrokerUnavailable:
            return ChannelState(0, 0)
        return ChannelState(present.version, present.subscriptions, present.members)

    async def change(self, app_id: str, channel: str, user_id: str, user_info: bytes) -> PresenceMember | None:
        try:
            described: say.Described = await self._line.ask(
                lambda n: say.Describe(n, app_id, channel, user_id, user_info)
            )
        except BrokerUnavailable:
            return None
        return described.member

    def note(self, app_id: str, channel: str, user_id: str, user_info: bytes) -> None:
        """The switchboard knows already."""

    async def count(self, app_id: str, channel: str) -> ChannelCount:
        try:
            counted: say.Counted = await self._line.ask(lambda n: say.Count(n, app_id, channel))
        except BrokerUnavailable:
            return ChannelCount(0, 0)
        return counted.count

    async def channels(self, app_id: str, prefix: str = "") -> dict[str, ChannelCount]:
        try:
            listed: say.Listed = await self._line.ask(lambda n: say.Channels(n, app_id, prefix))
        except BrokerUnavailable:
            return {}
        return listed.channels

    def report_connections(self, app_id: str, connections: int) -> None:
        self._line.report_connections(app_id, connections)

    def connections_elsewhere(self, app_id: str) -> int:
        return self._line.elsewhere.get(app_id, 0)

    async def count_elsewhere(self, app_id: str) -> int:
        return self.connections_elsewhere(app_id)

    async def take_place(self, app_id: str, here: int, most: int) -> bool:
        return here + self.connections_elsewhere(app_id) < most

    async def nodes(self) -> int:
        try:
            answered: say.Answered = await self._line.ask(say.Workers)
        except BrokerUnavailable:
            return 1
        return answered.number

    async def stop(self) -> None:
        self._line.on_change = None
        self._line.tell(say.Withdraw())


class WorkerHistory:
    """A `History` over the line."""

    def __init__(self, line: ParentLink) -> None:
        self._line = line

    async def append(self, app_id: str, channel: str, frame: bytes, ttl_s: float) -> int:
        appended: say.Appended = await self._line.ask(lambda n: say.Append(n, app_id, channel, frame, ttl_s))
        return appended.position

    async def latest(self, app_id: str, channel: str) -> HistoryEntry | None:
        kept: say.Kept = await self._line.ask(lambda n: say.Latest(n, app_id, channel))
        return kept.entries[0] if kept.entries else None

    async def since(self, app_id: str, channel: str, position: int) -> Sequence[HistoryEntry] | None:
        kept: say.Kept = await self._line.ask(lambda n: say.Since(n, app_id, channel, position))
        return kept.entries


class WorkerIdempotency:
    """`IdempotencyStore` over the line."""

    def __init__(self, line: ParentLink) -> None:
        self._line = line

    async def claim(self, app_id: str, key: str) -> bytes | None:
        claimed: say.Claimed = await self._line.ask(lambda n: say.Claim(n, app_id, key))
        if claimed.is_pending:
            raise CallUnderWay
        return claimed.answer

    async def complete(self, app_id: str, key: str, answer: bytes) -> None:
        self._line.tell(say.Complete(app_id, key, answer))

    async def release(self, app_id: str, key: str) -> None:
        self._line.tell(say.Release(app_id, key))


class ForwardedWebhooks:
    """A `WebhookSink` that leaves delivery to the switchboard's process, in order with joins and leaves."""

    def __init__(self, line: ParentLink) -> None:
        self._line = line

    def emit(self, app: App, event: OutgoingEvent) -> None:
        if app.webhooks:
            self._line.tell(say.Tell(app.id, event))


class WorkerOverview:
    """How all workers are doing, over the line."""

    def __init__(self, line: ParentLink) -> None:
        self._line = line

    async def totals(self) -> Totals:
        try:
            summed: say.Summed = await self._line.ask(say.TotalsAsked)
        except BrokerUnavailable:
            return Totals(1, 0.0, {})
        return summed.totals
