"""The verbs of the server: connect, subscribe, publish, deliver, terminate.

Coroutines, because the engines between nodes may have to wait; with the memory engines they end in their first step.
What is synchronous here must stay so: between joining the hub and saying so to the client nothing may be delivered.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from smartlink.protocol import encoding
from smartlink.protocol.errors import Code
from smartlink.protocol.names import ChannelKind, kind_of
from smartlink.protocol.session import Member
from smartlink.server.apps.base import App, AppManager
from smartlink.server.brokers.base import Broker, Control, Publication
from smartlink.server.eager import EagerTasks
from smartlink.server.fanout import MAX_PENDING_BYTES, FanOut
from smartlink.server.framing import text_frame
from smartlink.server.history.base import History
from smartlink.server.hub import Connection, Hub
from smartlink.server.metrics import Metrics
from smartlink.server.receipts.base import Receipts
from smartlink.server.roster.base import Change, Roster
from smartlink.server.webhooks.base import WebhookEvent, WebhookSink

__all__ = ["Node"]


class Node:
    """One process of the cluster, seen from its connections and its publishers."""

    def __init__(
        self,
        *,
        hub: Hub,
        fanout: FanOut,
        broker: Broker,
        roster: Roster,
        history: History,
        receipts: Receipts,
        apps: AppManager,
        webhooks: WebhookSink,
        tasks: EagerTasks,
        metrics: Metrics,
    ) -> None:
        self.hub = hub
        self.roster = roster
        self.history = history
        self.receipts = receipts
        self.metrics = metrics
        self.tasks = tasks
        self._fanout = fanout
        self._broker = broker
        self._apps = apps
        self._webhooks = webhooks
        self._joining: dict[tuple[str, str], int] = {}
        """Connections on their way onto a channel, while engines are waited for."""
        self._on_control: dict[str, Callable[[Control], None]] = {"terminate_user": self._terminate_here}

    async def start(self) -> None:
        """Begin to hear the other nodes."""
        await self._broker.start(self.deliver)
        await self.roster.start(self._on_change)

    async def stop(self) -> None:
        await self.roster.stop()
        await self._broker.stop()

    def on_control(self, action: str, act: Callable[[Control], None]) -> None:
        """Have `act` called for each control of that name. Plain; must not raise."""
        self._on_control[action] = act

    def connections(self, app: App) -> int:
        """Connections of the app, on all nodes."""
        return self.hub.count(app.id) + self.roster.connections_elsewhere(app.id)

    def has_room(self, app: App) -> bool:
        """Whether the app may have one more connection."""
        return self.connections(app) < app.max_connections

    def connect(self, connection: Connection) -> None:
        """A client has been greeted; it counts from now, subscribed or not."""
        self.hub.add(connection)
        self.roster.report_connections(connection.app.id, self.hub.count(connection.app.id))
        self.metrics.connections_opened += 1

    async def subscribe(self, connection: Connection, channel: str, member: Member | None) -> None:
        """Put a connection on a channel and tell it so. Raises BrokerUnavailable.

        Its right to be there has been checked. Subscribing twice tells the present state again.
        """
        app, session = connection.app, connection.session
        if channel in session.channels:
            connection.write(text_frame(session.joined(channel, member, await self._state(app, channel)).frame))
            return
        key = (app.id, channel)
        self._joining[key] = self._joining.get(key, 0) + 1
        try:
            await self._broker.subscribe(app.id, channel)
            arrival = await self.roster.join(app.id, channel, session.socket_id, member)
            state = await self._state(app, channel)
            is_here = connection.is_open
            if is_here:
                self.hub.join(connection, channel)
                connection.write(text_frame(session.joined(channel, member, state).frame))
        finally:
            self._joining[key] -= 1
            if not self._joining[key]:
                del self._joining[key]
        if arrival.is_first_on_channel:
            self._webhooks.tell(app, WebhookEvent("channel_occupied", channel))
        if member is not None and arrival.is_first_of_user:
            await self._tell_arrival(app, channel, member, session.socket_id)
        if not is_here:
            # It went away while an engine was waited for.
            await self._hear_no_more(app.id, channel)
            await self._depart(app, channel, session.socket_id, member)

    async def unsubscribe(self, connection: Connection, channel: str, member: Member | None, descriptor: int) -> None:
        """Take a connection off a channel; nothing of it reaches the connection from now on."""
        if self.hub.leave(connection, channel, descriptor):
            await self._hear_no_more(connection.app.id, channel)
        await self._depart(connection.app, channel, connection.session.socket_id, member)

    async def disconnect(self, connection: Connection, descriptor: int) -> None:
        """A connection is gone, however it ended."""
        vacated = self.hub.remove(connection, descriptor)
        self.roster.report_connections(connection.app.id, self.hub.count(connection.app.id))
        self.metrics.connections_closed += 1
        channels = connection.session.channels
        connection.session.channels = {}
        for channel in vacated:
            await self._hear_no_more(connection.app.id, channel)
        for channel, member in channels.items():
            await self._depart(connection.app, channel, connection.session.socket_id, member)

    async def publish(self, app: App, channel: str, frame: bytes, except_socket: str | None = None) -> None:
        """Send a frame's payload to every subscriber on every node. Raises BrokerUnavailable.

        Waits while more is on its way to the channel here than it can take.
        """
        subscribers = self.hub.channel(app.id, channel)
        while subscribers is not None and subscribers.pending_bytes > MAX_PENDING_BYTES:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            subscribers.waiters.append(waiter)
            await waiter
            subscribers = self.hub.channel(app.id, channel)
        self.metrics.publications += 1
        await self._broker.publish(Publication(app.id, channel, frame, except_socket))

    async def terminate_user(self, app: App, user_id: str) -> None:
        """End every connection of a user, on all nodes. Raises BrokerUnavailable."""
        await self._broker.publish(Control(app.id, "terminate_user", user_id))

    def deliver(self, publication: Publication | Control) -> None:
        """Hand what the broker brought to those who are here. The broker calls it; plain, never raises."""
        if isinstance(publication, Control):
            if (act := self._on_control.get(publication.action)) is not None:
                act(publication)
            return
        subscribers = self.hub.channel(publication.app_id, publication.channel)
        if subscribers is None:
            return
        left_out = None
        if publication.except_socket is not None:
            left_out = self.hub.connection(publication.app_id, publication.except_socket)
            if left_out is not None and publication.channel not in left_out.session.channels:
                left_out = None
        self._fanout.publish(subscribers, text_frame(publication.frame), left_out)

    def _terminate_here(self, control: Control) -> None:
        for connection in self.hub.of_user(control.app_id, control.target):
            connection.close(Code.UNAUTHORIZED, "Connection ended by the application")

    def _on_change(self, change: Change) -> None:
        """Announce what a dead node left behind."""
        app = self._apps.by_id(change.app_id)
        if app is not None:
            self.tasks.run(self._announce(app, change))

    async def _announce(self, app: App, change: Change) -> None:
        channel = change.channel
        if change.is_occupied:
            self._webhooks.tell(app, WebhookEvent("channel_occupied", channel))
        for member in change.added:
            await self._tell_arrival(app, channel, member)
        for member in change.removed:
            await self._tell_departure(app, channel, member)
        if change.is_vacated:
            self._webhooks.tell(app, WebhookEvent("channel_vacated", channel))

    async def _tell_arrival(self, app: App, channel: str, member: Member, except_socket: str | None = None) -> None:
        self._webhooks.tell(app, WebhookEvent("member_added", channel, member.user_id))
        frame = encoding.member_added(channel, member.user_id, member.user_info)
        await self._broker.publish(Publication(app.id, channel, frame, except_socket))

    async def _tell_departure(self, app: App, channel: str, member: Member) -> None:
        self._webhooks.tell(app, WebhookEvent("member_removed", channel, member.user_id))
        await self._broker.publish(Publication(app.id, channel, encoding.member_removed(channel, member.user_id)))

    async def _hear_no_more(self, app_id: str, channel: str) -> None:
        """Unsubscribe this node, unless somebody is here or about to be."""
        if self.hub.channel(app_id, channel) is None and (app_id, channel) not in self._joining:
            await self._broker.unsubscribe(app_id, channel)

    async def _state(self, app: App, channel: str) -> bytes:
        if kind_of(channel) is not ChannelKind.PRESENCE:
            return b"{}"
        members = await self.roster.members(app.id, channel)
        return encoding.presence_state((member.user_id, member.user_info) for member in members)

    async def _depart(self, app: App, channel: str, socket_id: str, member: Member | None) -> None:
        departure = await self.roster.leave(app.id, channel, socket_id)
        if member is not None and departure.is_last_of_user:
            await self._tell_departure(app, channel, member)
        if departure.is_last_on_channel:
            self._webhooks.tell(app, WebhookEvent("channel_vacated", channel))
