"""Who is here: the connections and channels of this process, indexed both ways. Plain and synchronous.

A connection leaves every index in one step, at the moment it is known to be gone: its descriptor number may be
another connection's a moment later.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from smartlink.protocol.session import Session
from smartlink.server.apps.base import App
from smartlink.server.fanout import Subscriber, Subscribers

__all__ = ["Connection", "Hub", "Tenant"]


class Connection(Subscriber, Protocol):
    """A client of this process, as hub and node know it."""

    app: App
    session: Session

    @property
    def is_open(self) -> bool: ...

    def look_after(self, now: float) -> None: ...

    def close(self, code: int, reason: str) -> None:
        """Tell the client why and end the connection; it leaves every index at once."""


class Tenant:
    """What one app has in this process."""

    __slots__ = ("channels", "connections")

    def __init__(self) -> None:
        self.connections: dict[str, Connection] = {}
        self.channels: dict[str, Subscribers] = {}


class Hub:
    """The connections and channels of this process. A channel exists while somebody here is on it."""

    def __init__(self) -> None:
        self._tenants: dict[str, Tenant] = {}

    def tenant(self, app_id: str) -> Tenant:
        tenant = self._tenants.get(app_id)
        if tenant is None:
            tenant = self._tenants[app_id] = Tenant()
        return tenant

    def channel(self, app_id: str, channel: str) -> Subscribers | None:
        tenant = self._tenants.get(app_id)
        return None if tenant is None else tenant.channels.get(channel)

    def add(self, connection: Connection) -> None:
        self.tenant(connection.app.id).connections[connection.session.socket_id] = connection

    def remove(self, connection: Connection, descriptor: int) -> list[str]:
        """Take a connection out of every index. Returns the channels on which it was the last one here."""
        tenant = self.tenant(connection.app.id)
        tenant.connections.pop(connection.session.socket_id, None)
        return [name for name in connection.session.channels if self._leave(tenant, connection, name, descriptor)]

    def join(self, connection: Connection, channel: str) -> None:
        """Subscribe a connection that is not on the channel yet."""
        channels = self.tenant(connection.app.id).channels
        subscribers = channels.get(channel)
        if subscribers is None:
            subscribers = channels[channel] = Subscribers()
        subscribers.add(connection)

    def leave(self, connection: Connection, channel: str, descriptor: int) -> bool:
        """Unsubscribe a connection. Returns whether it was the last one here."""
        return self._leave(self.tenant(connection.app.id), connection, channel, descriptor)

    def set_aside(self, connection: Connection, descriptor: int) -> None:
        """The connection fell behind: no channel may write to its descriptor until `bring_back`."""
        channels = self.tenant(connection.app.id).channels
        for name in connection.session.channels:
            if (subscribers := channels.get(name)) is not None:
                subscribers.set_aside(connection, descriptor)

    def bring_back(self, connection: Connection) -> None:
        """The connection has caught up."""
        channels = self.tenant(connection.app.id).channels
        for name in connection.session.channels:
            if (subscribers := channels.get(name)) is not None:
                subscribers.attach(connection)

    def connection(self, app_id: str, socket_id: str) -> Connection | None:
        tenant = self._tenants.get(app_id)
        return None if tenant is None else tenant.connections.get(socket_id)

    def count(self, app_id: str) -> int:
        tenant = self._tenants.get(app_id)
        return 0 if tenant is None else len(tenant.connections)

    def of_user(self, app_id: str, user_id: str) -> list[Connection]:
        """The connections that some presence channel here knows as this user's."""
        return [
            connection
            for connection in self.tenant(app_id).connections.values()
            if any(member is not None and member.user_id == user_id for member in connection.session.channels.values())
        ]

    def __iter__(self) -> Iterator[Connection]:
        for tenant in self._tenants.values():
            yield from tuple(tenant.connections.values())

    def __len__(self) -> int:
        return sum(len(tenant.connections) for tenant in self._tenants.values())

    def _leave(self, tenant: Tenant, connection: Connection, channel: str, descriptor: int) -> bool:
        subscribers = tenant.channels.get(channel)
        if subscribers is None:
            return False
        subscribers.remove(connection, descriptor)
        if len(subscribers):
            return False
        del tenant.channels[channel]
        for waiter in subscribers.waiters:
            if not waiter.done():
                waiter.set_result(None)
        return True
