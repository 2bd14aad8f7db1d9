"""The connections and channels of this process, indexed both ways. Plain and synchronous.

A connection leaves every index in one step, as soon as it is known to be gone: a moment later its descriptor number may
belong to another connection.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import TYPE_CHECKING, Protocol

from smartlink.protocol.names import kind_of
from smartlink.protocol.session import PresenceMember, Session
from smartlink.server.apps.base import App
from smartlink.server.core.fanout import Subscriber, Subscribers

if TYPE_CHECKING:
    from smartlink.server.core.client_sessions import ClientSession

__all__ = ["Connection", "Hub", "Tenant"]


class Connection(Subscriber, Protocol):
    """A client of this process, as hub and node see it."""

    app: App
    session: Session
    began_at: int
    """`Revocations.now` when it began."""
    client_session: ClientSession | None
    """What lets its client resume, if it asked for that."""

    @property
    def is_open(self) -> bool: ...

    @property
    def room(self) -> int:
        """Bytes that may be written now before it is cut as too slow."""

    def sweep(self, now: float) -> None:
        """Called each second."""

    def close(self, code: int, reason: str) -> None:
        """Send the client the reason and end the connection; it leaves every index at once."""


class Tenant:
    """What one app has in this process."""

    __slots__ = ("channels", "connections", "subscriptions", "users", "watching")

    def __init__(self) -> None:
        self.connections: dict[str, Connection] = {}
        self.channels: dict[str, Subscribers] = {}
        self.subscriptions = 0
        """Sum of subscribers over all channels."""
        self.users: dict[str, set[Connection]] = {}
        """By user id: connections that are signed in as the user, are that member of a presence channel, or were
        authorized for a private channel as that user."""
        self.watching: dict[Connection, tuple[str, ...]] = {}
        """Channels that a connection receives without subscribing."""


class Hub:
    """The connections and channels of this process. A channel exists while a connection here is on it."""

    def __init__(self) -> None:
        self._tenants: dict[str, Tenant] = {}

    def tenant(self, app_id: str) -> Tenant:
        """Return what the app has here; made on first use."""
        tenant = self._tenants.get(app_id)
        if tenant is None:
            tenant = self._tenants[app_id] = Tenant()
        return tenant

    def channel(self, app_id: str, channel: str) -> Subscribers | None:
        """Return the subscribers of a channel, or None when there are none here."""
        tenant = self._tenants.get(app_id)
        return None if tenant is None else tenant.channels.get(channel)

    def add(self, connection: Connection) -> None:
        """Add a connection that was greeted."""
        self.tenant(connection.app.id).connections[connection.session.socket_id] = connection

    def remove(self, connection: Connection, descriptor: int) -> list[str]:
        """Remove a connection from every index. Returns the channels on which it was the last one here."""
        tenant, session = self.tenant(connection.app.id), connection.session
        tenant.connections.pop(session.socket_id, None)
        received = tuple(self._received(tenant, connection))
        tenant.watching.pop(connection, None)
        user_ids = {member.user_id for member in session.channels.values() if member is not None}
        user_ids.update(session.named.values())
        if session.user is not None:
            user_ids.add(session.user.id)
        for user_id in user_ids:
            self._forget_user(tenant, connection, user_id)
        return [name for name in received if self._leave(tenant, connection, name, descriptor)]

    def join(self, connection: Connection, channel: str, member: PresenceMember | None = None) -> None:
        """Subscribe a connection that is not on the channel yet; as `member` on a presence channel."""
        tenant = self.tenant(connection.app.id)
        if channel not in tenant.watching.get(connection, ()):
            self._join(tenant, connection, channel)
        user_id = connection.session.named.get(channel) if member is None else member.user_id
        if user_id is not None:
            tenant.users.setdefault(user_id, set()).add(connection)

    def leave(self, connection: Connection, channel: str, member: PresenceMember | None, descriptor: int) -> bool:
        """Unsubscribe a connection whose session has left the channel. Returns whether it was the last one here."""
        tenant, session = self.tenant(connection.app.id), connection.session
        named = session.named.pop(channel, None)
        user_id = named if member is None else member.user_id
        if user_id is not None and not (
            (session.user is not None and session.user.id == user_id)
            or any(other is not None and other.user_id == user_id for other in session.channels.values())
            or user_id in session.named.values()
        ):
            self._forget_user(tenant, connection, user_id)
        if channel in tenant.watching.get(connection, ()):
            return False
        return self._leave(tenant, connection, channel, descriptor)

    def sign_in(self, connection: Connection, user_id: str) -> None:
        """Index the connection as this user's."""
        self.tenant(connection.app.id).users.setdefault(user_id, set()).add(connection)

    def watch(self, connection: Connection, channels: tuple[str, ...]) -> None:
        """Let a connection receive channels without subscribing, until it ends."""
        tenant = self.tenant(connection.app.id)
        tenant.watching[connection] = (*tenant.watching.get(connection, ()), *channels)
        for channel in channels:
            self._join(tenant, connection, channel)

    def receives(self, connection: Connection, channel: str) -> bool:
        """Whether publications on a channel reach a connection, subscribed or not."""
        watching = self.tenant(connection.app.id).watching.get(connection, ())
        return channel in connection.session.channels or channel in watching

    def set_aside(self, connection: Connection, descriptor: int) -> None:
        """Stop channels from writing to the descriptor of a connection that fell behind, until `bring_back`."""
        tenant = self.tenant(connection.app.id)
        for name in self._received(tenant, connection):
            if (subscribers := tenant.channels.get(name)) is not None:
                subscribers.set_aside(connection, descriptor)

    def bring_back(self, connection: Connection) -> None:
        """Let channels write to the descriptor of a connection that has caught up."""
        tenant = self.tenant(connection.app.id)
        for name in self._received(tenant, connection):
            if (subscribers := tenant.channels.get(name)) is not None:
                subscribers.attach(connection)

    def connection(self, app_id: str, socket_id: str) -> Connection | None:
        """Return the connection with this socket id, or None."""
        tenant = self._tenants.get(app_id)
        return None if tenant is None else tenant.connections.get(socket_id)

    def count(self, app_id: str) -> int:
        """Count the app's connections here."""
        tenant = self._tenants.get(app_id)
        return 0 if tenant is None else len(tenant.connections)

    def of_user(self, app_id: str, user_id: str) -> list[Connection]:
        """Return the user's connections here: by sign-in, presence channel or authorization."""
        tenant = self._tenants.get(app_id)
        return [] if tenant is None else list(tenant.users.get(user_id, ()))

    def on_channel(self, app_id: str, channel: str) -> list[Connection]:
        """Return the connections here that receive a channel."""
        if self.channel(app_id, channel) is None:
            return []
        return [
            connection for connection in self.tenant(app_id).connections.values() if self.receives(connection, channel)
        ]

    def oldest(self, app_id: str) -> Connection | None:
        """Return the app's connection here that began first, or None."""
        tenant = self._tenants.get(app_id)
        return None if tenant is None else next(iter(tenant.connections.values()), None)

    def authorized(self) -> list[Connection]:
        """Return the connections here that are signed in, or on a channel that needs authorization."""
        return [
            connection
            for connection in self
            if connection.session.user is not None
            or any(kind_of(channel).needs_authorization for channel in connection.session.channels)
        ]

    def __iter__(self) -> Iterator[Connection]:
        for tenant in tuple(self._tenants.values()):
            yield from tuple(tenant.connections.values())

    def __len__(self) -> int:
        return sum(len(tenant.connections) for tenant in self._tenants.values())

    @staticmethod
    def _received(tenant: Tenant, connection: Connection) -> Iterable[str]:
        watching = tenant.watching.get(connection)
        channels = connection.session.channels
        return channels if watching is None else chain(channels, (name for name in watching if name not in channels))

    @staticmethod
    def _join(tenant: Tenant, connection: Connection, channel: str) -> None:
        subscribers = tenant.channels.get(channel)
        if subscribers is None:
            subscribers = tenant.channels[channel] = Subscribers()
        subscribers.add(connection)
        tenant.subscriptions += 1

    @staticmethod
    def _forget_user(tenant: Tenant, connection: Connection, user_id: str) -> None:
        connections = tenant.users.get(user_id)
        if connections is not None:
            connections.discard(connection)
            if not connections:
                del tenant.users[user_id]

    def _leave(self, tenant: Tenant, connection: Connection, channel: str, descriptor: int) -> bool:
        subscribers = tenant.channels.get(channel)
        if subscribers is None:
            return False
        before = len(subscribers)
        subscribers.remove(connection, descriptor)
        left = len(subscribers)
        tenant.subscriptions += left - before
        if left:
            return False
        del tenant.channels[channel]
        for waiter in subscribers.waiters:
            if not waiter.done():
                waiter.set_result(None)
        return True
