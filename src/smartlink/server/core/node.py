"""The operations of the server: connect, subscribe, publish, deliver, terminate.

They are coroutines because the engines between nodes may have to wait; with memory engines they end in their first
step. What is synchronous here must stay so: between the entry in the hub and its confirmation to the client nothing may
be delivered.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from smartlink.protocol import encoding
from smartlink.protocol.errors import Code
from smartlink.protocol.names import ChannelKind, is_cache, kind_of
from smartlink.protocol.session import PresenceMember, SignedInUser, Whisper
from smartlink.server.apps.base import App, AppManager, ending
from smartlink.server.apps.policies import PolicyTable
from smartlink.server.cluster.brokers.base import (
    Broker,
    BrokerUnavailable,
    Control,
    Publication,
    Retention,
)
from smartlink.server.cluster.history.base import History
from smartlink.server.cluster.idempotency.base import IdempotencyStore
from smartlink.server.cluster.presence.base import Arrival, Change, PresenceStore
from smartlink.server.cluster.sessions.base import SessionStore
from smartlink.server.core.announcer import Announcer
from smartlink.server.core.conflation import Conflation
from smartlink.server.core.corrections import Corrections
from smartlink.server.core.deliveries import Deliveries
from smartlink.server.core.fanout import FanOut
from smartlink.server.core.graces import Graces
from smartlink.server.core.grants import Grants, Revocation, user_of
from smartlink.server.core.hub import Connection, Hub
from smartlink.server.core.listening import Listening, VersionedFrame, newer_frames
from smartlink.server.core.members import Members
from smartlink.server.core.newcomers import Newcomers
from smartlink.server.core.noting import note_membership
from smartlink.server.core.places import Places
from smartlink.server.core.publishing import Publishing
from smartlink.server.core.receipts import Receipts
from smartlink.server.core.resumption import Resumption
from smartlink.server.core.revocations import Revocations
from smartlink.server.core.terminations import Terminations
from smartlink.server.core.user_info import Infos
from smartlink.server.core.users import SignedInUsers
from smartlink.server.net.framing import text_frame
from smartlink.server.runtime.eager import EagerTasks, yield_now_and_then
from smartlink.server.runtime.feed import Feed
from smartlink.server.runtime.metrics import Metrics
from smartlink.server.webhooks.base import OutgoingEvent, WebhookSink

__all__ = ["Node"]

_MISS = b""
"""Stands for: the channel has no cached event."""


class Node:
    """One process of the cluster, as its connections and publishers use it."""

    def __init__(
        self,
        *,
        hub: Hub,
        fanout: FanOut,
        broker: Broker,
        presence: PresenceStore,
        history: History,
        idempotency: IdempotencyStore,
        sessions: SessionStore,
        session_ttl_s: float,
        apps: AppManager,
        webhooks: WebhookSink,
        tasks: EagerTasks,
        metrics: Metrics,
        feed: Feed | None = None,
    ) -> None:
        self.hub = hub
        self.feed = feed or Feed()
        self.presence = presence
        self.history = history
        self.idempotency = idempotency
        self.metrics = metrics
        self.tasks = tasks
        self._broker = broker
        self._apps = apps
        self._webhooks = webhooks
        self.policies = PolicyTable(apps)
        self._places = Places(presence, self.policies, self.feed)
        self._listening = Listening(hub, broker)
        self._revocations = Revocations()
        self._newcomers = Newcomers()
        self._replayed = Newcomers()
        """Connections that were sent events again up to a position."""
        self._corrections = Corrections()
        self._announcer = Announcer(broker, presence, apps, self.policies, webhooks, tasks, self.deliver)
        receipts = Receipts(idempotency, self._announcer.emit, tasks)
        self.resumption = Resumption(
            hub, broker, sessions, tasks, metrics, session_ttl_s, receipts.report, fanout.publish
        )
        self._deliveries = Deliveries(
            hub,
            fanout,
            self._listening,
            self._newcomers,
            self._replayed,
            self.resumption,
            self.feed,
            self._note_change,
        )
        self._conflation = Conflation(hub, self.policies, metrics, self._deliveries.send_waiting)
        publishing = Publishing(hub, broker, history, self.policies, Retention(ttl_s=session_ttl_s), metrics, self.feed)
        self.publish, self.history_of = publishing.publish, publishing.history_of
        self._graces = Graces(self._depart, tasks)
        self._grants = Grants(hub, self._revocations, tasks, self._expel)
        self._terminations = Terminations(hub, self._revocations, tasks, self.feed)
        self._users = SignedInUsers(
            hub,
            presence,
            self._listening,
            self._announcer.publish_here_at_least,
            self.deliver,
            lambda: self.is_connected,
            tasks,
            self._revocations,
            self._newcomers,
            self._corrections,
            webhooks,
        )
        self.infos = Infos(hub, presence, self._announcer.publish_here_at_least, tasks)
        self._members = Members(hub, presence, self.deliver, lambda: self.is_connected, tasks, self._corrections)
        self.has_descriptors: Callable[[], bool] = lambda: True
        """Whether this process can hold one more connection."""
        self._on_control: dict[str, Callable[[Control], None]] = {
            "terminate_user": self._terminations.terminate_user,
            "reconnect_user": self._terminations.reconnect_user,
            "missed": self._terminations.reconnect_channel,
            "revoke": self._grants.revoke,
            "change_info": self.infos.change_here,
        }

    async def start(self) -> None:
        """Start the engines that connect this node to the others."""
        await self._broker.start(self.deliver)
        await self.presence.start(self._on_change)

    async def stop(self) -> None:
        """Stop the engines, and cancel what is scheduled."""
        self._announcer.stop()
        self._newcomers.stop()
        self._replayed.stop()
        self._grants.stop()
        await self._graces.finish()
        self.resumption.stop()
        self._corrections.stop()
        self._members.stop()
        self._users.stop()
        self._conflation.stop()
        await self.presence.stop()
        await self._broker.stop()

    @property
    def is_connected(self) -> bool:
        """Whether other nodes can be reached now."""
        return self._broker.is_available

    def on_control(self, action: str, act: Callable[[Control], None]) -> None:
        """Call `act`, a plain function that must not raise, for each control with this action."""
        self._on_control[action] = act

    async def tell(self, message: Publication | Control) -> None:
        """Send a message between nodes that clients do not see. Raises BrokerUnavailable."""
        await self._broker.publish(message)

    async def subscribe_internal(self, app_id: str, channel: str, handler: Callable[[bytes], None]) -> None:
        """Pass each frame on one of the server's own channels to `handler`, a plain function that must not raise."""
        await self._listening.subscribe_internal(app_id, channel, handler)

    async def unsubscribe_internal(self, app_id: str, channel: str) -> None:
        """Undo `subscribe_internal`."""
        await self._listening.unsubscribe_internal(app_id, channel)

    def connections(self, app: App) -> int:
        """Count the app's connections on all nodes, as last reported by the others."""
        return self.hub.count(app.id) + self.presence.connections_elsewhere(app.id)

    async def count_connections(self, app: App) -> int:
        """Count the app's connections on all nodes, asking the others now."""
        return await self.presence.count_elsewhere(app.id) + self.hub.count(app.id)

    def has_room(self, app: App) -> bool:
        """Whether the app may have one more connection on this node; `take_place` includes the others."""
        return self.hub.count(app.id) < app.max_connections

    async def take_place(self, app: App) -> bool:
        """Whether the app may have one more connection on all nodes; call `connect` in the same step."""
        return await self.presence.take_place(app.id, self.hub.count(app.id), app.max_connections)

    def ending_of(self, app: App) -> tuple[Code, str] | None:
        """Return why a connection admitted as `app` must end because the app has changed since, or None."""
        return ending(app, self._apps.by_id(app.id))

    def give_place_back(self, app: App) -> None:
        """Give back a place taken for a connection that has ended meanwhile."""
        self.presence.report_connections(app.id, self.hub.count(app.id))

    def connect(self, connection: Connection) -> None:
        """Add a client that is being greeted; it counts from now, subscribed or not."""
        connection.began_at = self._revocations.now
        self.hub.add(connection)
        self.presence.report_connections(connection.app.id, self.hub.count(connection.app.id))
        self.metrics.connections_opened += 1
        self.metrics.app(connection.app.id).connections_opened += 1
        if self.feed.watches:
            self.feed.note("connect", connection.app.id, socket_id=connection.session.socket_id)

    async def subscribe(
        self,
        connection: Connection,
        channel: str,
        member: PresenceMember | None,
        *,
        expires_at: float | None = None,
        is_by_ticket: bool = False,
    ) -> None:
        """Subscribe an authorized connection to a channel and confirm it, or send it the reason why not.

        Subscribing again sends the current state again. While this waits for engines, the connection may end, and
        others may join and leave: nothing is left behind, nothing is missed.
        """
        app, session = connection.app, connection.session
        if channel in session.channels:
            await self._send_state_again(connection, channel)
            return
        about = self._grants.subjects(connection, channel, member)
        if expires_at is not None and expires_at <= time.time():
            connection.write(text_frame(session.expired(channel).frame))
            return
        if await self._refuses(connection, channel, member, about, is_by_ticket=is_by_ticket):
            return
        listening = self._listening
        is_receiving = self.hub.receives(connection, channel)
        arriving = listening.expect(app.id, channel, session.socket_id, user_of(connection, channel, member))
        cached: bytes | None = None
        try:
            await listening.begin(app.id, channel)
            is_conflated = self.policies.of(app.id, channel).conflate_ms is not None
            resumed = await self.resumption.follow(connection, channel, about, is_conflated=is_conflated)
            if is_cache(channel):
                cached = await self._cached(app, channel)
            # From here to the announcement there is no wait: it is in order.
            grace_s = 0 if connection.client_session is None else self._grace_s(app, channel, member)
            arrival = await self.presence.join(app.id, channel, session.socket_id, member, grace_s)
            if member is not None and arrival.is_number is not None:
                member = replace(member, is_number=arrival.is_number)
            state = _state(channel, arrival)
        finally:
            listening.arrived(app.id, channel, arriving)
        came = [] if is_receiving else arriving.frames
        if came and arriving.is_swamped:
            connection.close(Code.OVER_CAPACITY, f"More events arrived on {channel} at once than can be buffered")
        if (
            not connection.is_open
            or self._terminations.refuse_void(connection, channel, member)
            or self._places.refuse_last(connection, channel, arrival)
        ):
            # Others may have joined between its arrival and its departure: announce both.
            await self._announcer.arrived(app, channel, session.socket_id, member, arrival)
            await listening.end(app.id, channel)
            await self._depart(app, channel, session.socket_id, member)
            return
        self._users.subscribed(connection, channel)
        self.hub.join(connection, channel, member)
        self._conflation.joined(connection, channel)
        self._grants.expire(connection, channel, expires_at)
        frames = [session.joined(channel, member, state).frame]
        if resumed is not None:
            self.resumption.joined(connection, channel, resumed)
            self._replayed.note(app.id, channel, resumed.last if resumed.is_complete else 0, connection)
            came = [each for each in came if not 0 < each.position <= resumed.last]
            frames += resumed.frames
        if resumed is None or not resumed.is_complete:
            frames += self._cached_frames(app, channel, cached, came)
        if member is not None:
            self._newcomers.note(app.id, channel, arrival.version, connection)
        connection.write(b"".join(map(text_frame, frames + newer_frames(came, state, arrival.version))))
        self._note("subscribe", connection, channel, member)
        if connection.is_open:
            await self._announcer.arrived(app, channel, session.socket_id, member, arrival)
        await self._graces.came_back(connection, channel)

    def _cached_frames(self, app: App, channel: str, cached: bytes | None, came: list[VersionedFrame]) -> list[bytes]:
        """What a newcomer is sent of a cache channel. An event that arrived meanwhile is newer, or the same."""
        if cached is None or not all(encoding.is_internal(each.frame) for each in came):
            return []
        if cached != _MISS:
            return [cached]
        self._announcer.emit(app, OutgoingEvent("cache_miss", channel))
        return [encoding.cache_miss(channel)]

    def _expel(self, connection: Connection, channel: str, kind: str, message: str, status: int) -> None:
        """Take a connection off a channel on which it has no right to be any more."""
        if connection.is_open and channel in connection.session.channels:
            send, leave = connection.session.expelled(channel, kind, message, status)
            connection.write(text_frame(send.frame))
            self.tasks.run(self.unsubscribe(connection, channel, leave.member, connection.descriptor))

    async def revoke(self, app: App, revocation: Revocation) -> None:
        """End subscriptions on all nodes, and void signatures made for them so far.

        Raises BrokerUnavailable; on this node it is done even then.
        """
        try:
            await self.resumption.revoke(app.id, revocation.subject)
        finally:
            await self._control_at_least_here(revocation.control(app.id))

    async def _send_state_again(self, connection: Connection, channel: str) -> None:
        """Send a subscribed connection the channel's state, then what arrived while the state was read."""
        app, session = connection.app, connection.session
        frames: list[bytes] = []
        text, version = b"{}", 0
        if kind_of(channel) is ChannelKind.PRESENCE:
            arriving = self._listening.expect(app.id, channel, session.socket_id)
            try:
                state = await self.presence.state(app.id, channel)
            finally:
                self._listening.arrived(app.id, channel, arriving)
            text, version = _presence(state.members), state.version
            changes = [each for each in arriving.frames if encoding.member_in(each.frame) is not None]
            frames = newer_frames(changes, text, version)
        if connection.is_open and channel in session.channels:
            self._newcomers.note(app.id, channel, version, connection)
            joined = session.joined(channel, session.channels[channel], text).frame
            connection.write(b"".join(map(text_frame, [joined, *frames])))
        else:
            # It left meanwhile, when it counted as joining: unsubscribe the node in its place.
            await self._listening.end(app.id, channel)

    async def unsubscribe(
        self, connection: Connection, channel: str, member: PresenceMember | None, descriptor: int
    ) -> None:
        """Unsubscribe a connection from a channel; it receives nothing more of it."""
        self.hub.leave(connection, channel, member, descriptor)
        await self.depart(connection, channel, member)

    async def depart(self, connection: Connection, channel: str, member: PresenceMember | None) -> None:
        """Announce that a connection, which the hub has already removed from the channel, has left it."""
        self._newcomers.left(connection.app.id, channel, connection)
        self._grants.left(connection, channel)
        if connection.client_session is not None:
            self._replayed.left(connection.app.id, channel, connection)
            self.resumption.left(connection, channel)
        self._note("unsubscribe", connection, channel, member)
        await self._listening.end(connection.app.id, channel)
        await self._depart(connection.app, channel, connection.session.socket_id, member)

    async def sign_in(self, connection: Connection, user: SignedInUser) -> None:
        """Sign a connection in, or end it when its user has too many."""
        await self._users.sign_in(connection, user)

    async def disconnect(self, connection: Connection, descriptor: int, *, is_lost: bool = False) -> None:
        """Remove a connection that has ended. `is_lost`: neither side meant to end the conversation."""
        app, session = connection.app, connection.session
        self._grants.gone(connection)
        name = None
        if connection.client_session is not None:
            name = connection.client_session.name if is_lost else None
            self._replayed.gone(connection)
            self.resumption.ended(connection)
        vacated = self.hub.remove(connection, descriptor)
        self._newcomers.gone(connection)
        self.presence.report_connections(app.id, here := self.hub.count(app.id))
        if not here:
            self._revocations.forget(app.id)
        self.metrics.connections_closed += 1
        self.metrics.app(app.id).connections_closed += 1
        channels, session.channels = session.channels, {}
        user, session.user = session.user, None
        for number, channel in enumerate(vacated, 1):
            await self._listening.end(app.id, channel)
            await yield_now_and_then(number)
        for number, (channel, member) in enumerate(channels.items(), 1):
            if name and member and (grace_s := self._grace_s(app, channel, member)):
                await self._graces.hold((app.id, name, channel), app, session.socket_id, member, grace_s)
            else:
                await self._depart(app, channel, session.socket_id, member)
            await yield_now_and_then(number)
        if user is not None:
            await self._users.sign_out(app, session.socket_id, user.id)

    async def whisper(self, connection: Connection, event: Whisper) -> None:
        """Send a client event to the other subscribers. Never raises; while nodes are apart it stays on this one."""
        app, socket_id = connection.app, connection.session.socket_id
        if app.webhooks:
            outgoing = OutgoingEvent("client_event", event.channel, event.user_id, event.event, event.data, socket_id)
            self._webhooks.emit(app, outgoing)
        await self.publish(app, event.channel, event.frame, socket_id, is_live=True)

    async def terminate_user(self, app: App, user_id: str) -> None:
        """End every connection of a user, on all nodes, and void signatures made for any connection so far.

        Raises BrokerUnavailable; on this node it is done even then.
        """
        await self._end_user(Control(app.id, "terminate_user", user_id))

    async def reconnect_user(self, app: App, user_id: str) -> None:
        """Like `terminate_user`, but tell the clients to reconnect."""
        await self._end_user(Control(app.id, "reconnect_user", user_id))

    async def _end_user(self, control: Control) -> None:
        try:
            await self.resumption.revoke(control.app_id, Revocation(user_id=control.target).subject)
        finally:
            await self._control_at_least_here(control)

    async def _control_at_least_here(self, control: Control) -> None:
        try:
            await self._broker.publish(control)
        except BrokerUnavailable:
            self.deliver(control)
            raise

    def _note(self, kind: str, connection: Connection, channel: str, member: PresenceMember | None) -> None:
        if self.feed.watches:
            note_membership(self.feed, kind, connection, channel, member)

    def refuse(self, reason: str, why: str, app_id: str = "", address: str = "") -> None:
        """Count a connection that is refused, and tell operators. `reason` is the metric's label."""
        self.metrics.refuse(reason)
        self.feed.problem("refused", app_id, f"{why} (from {address})" if address else why)

    def deliver(self, publication: Publication | Control) -> None:
        """Send a publication to the subscribers here, or act on a control. The broker calls it; never raises."""
        if isinstance(publication, Publication):
            self._deliveries.deliver(publication)
        elif (act := self._on_control.get(publication.action)) is not None:
            act(publication)

    def policies_changed(self, app_id: str) -> None:
        """Apply an app's new policies to what it has here. Most are looked up whenever they matter."""
        self.tasks.run(self._conflation.apply(app_id))

    def _note_change(self, publication: Publication) -> int | None:
        """Note what a node, perhaps this one, announces on a channel, for a recheck (`rechecker`).

        Returns the version of the wrong change when it was corrected already: only connections that did not hear the
        correction still need this publication (`Corrections`).
        """
        app_id, channel, frame = publication.app_id, publication.channel, publication.frame
        if (count := encoding.subscription_count_in(frame)) is not None:
            self._announcer.counts.note(app_id, channel, count)
        elif (member := encoding.member_in(frame)) is not None:
            corrected = self._corrections.covered(app_id, channel, member[0], publication.version)
            if corrected is not None:
                return corrected
            self._members.note(app_id, channel, member[0], publication.version, has_come=member[1])
        elif (watched := encoding.watched_in(frame)) is not None:
            corrected = self._corrections.covered(app_id, channel, watched[0], publication.version)
            if corrected is not None:
                return corrected
            self._users.note(app_id, watched[0], publication.version, is_online=watched[1])
        elif (updated := encoding.member_updated_in(frame)) is not None:
            self.presence.note(app_id, channel, *updated)
        return None

    def _on_change(self, change: Change) -> None:
        """Announce what a dead node left behind, or what a node brings that is reached again."""
        app = self._apps.by_id(change.app_id)
        if app is not None:
            self.tasks.run(self._announce(app, change))

    async def _announce(self, app: App, change: Change) -> None:
        await self._users.took_place(app, change)
        await self._announcer.changed(app, change)

    async def _refuses(
        self,
        connection: Connection,
        channel: str,
        member: PresenceMember | None,
        about: Sequence[str],
        *,
        is_by_ticket: bool,
    ) -> bool:
        """Whether a subscription was refused: the channel is full, or its signature or ticket void."""
        if is_by_ticket and not await self.resumption.ticket_holds(connection, channel, about):
            connection.write(text_frame(connection.session.voided(channel).frame))
            return True
        if self._places.has_limit(connection.app, channel) and await self._places.refuse_full(
            connection, channel, member
        ):
            return True
        return self._terminations.refuse_void(connection, channel, member)

    def _grace_s(self, app: App, channel: str, member: PresenceMember | None) -> int:
        """How long a lost member whose client has a session stays."""
        return 0 if member is None else self.policies.of(app.id, channel).presence_grace_s

    async def _cached(self, app: App, channel: str) -> bytes | None:
        """Return the last event on a cache channel, `_MISS` when there is none, None when it is unknown."""
        try:
            entry = await self.history.latest(app.id, channel)
        except BrokerUnavailable:
            return None
        return _MISS if entry is None else entry.frame

    async def _depart(self, app: App, channel: str, socket_id: str, member: PresenceMember | None) -> None:
        departure = await self.presence.leave(app.id, channel, socket_id)
        await self._announcer.departed(app, channel, member, departure)


def _state(channel: str, arrival: Arrival) -> bytes:
    if kind_of(channel) is not ChannelKind.PRESENCE:
        return b'"{}"'
    return _presence(arrival.members) if arrival.data is None else arrival.data()


def _presence(members: Iterable[PresenceMember]) -> bytes:
    return encoding.presence_state((member.raw_id, member.user_info) for member in members)
