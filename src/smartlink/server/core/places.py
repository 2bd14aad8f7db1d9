"""Refuses who would be one too many on a channel."""

from __future__ import annotations

from smartlink.protocol.session import PresenceMember
from smartlink.server.apps.base import App
from smartlink.server.apps.policies import PolicyTable
from smartlink.server.cluster.presence.base import Arrival, PresenceStore
from smartlink.server.core.hub import Connection
from smartlink.server.net.framing import text_frame
from smartlink.server.runtime.feed import Feed

__all__ = ["Places"]


class Places:
    """How many may be on a channel, over all nodes: members as the app says, subscribers as its policy says."""

    def __init__(self, presence: PresenceStore, policies: PolicyTable, feed: Feed) -> None:
        self._presence = presence
        self._policies = policies
        self._feed = feed

    def has_limit(self, app: App, channel: str) -> bool:
        """Whether a connection may be one too many."""
        return app.max_presence_members is not None or self._policies.of(app.id, channel).max_subscribers is not None

    async def refuse_full(self, connection: Connection, channel: str, member: PresenceMember | None) -> bool:
        """Refuse a connection that wants to join a full channel.

        When several join at once, `refuse_last` refuses the last subscribers; some members may still pass.
        """
        app = connection.app
        most_members = None if member is None else app.max_presence_members
        most = self._policies.of(app.id, channel).max_subscribers
        if most_members is None and most is None:
            return False
        count = await self._presence.count(app.id, channel)
        if most is not None and count.subscriptions >= most and not self._comes_back(connection, channel):
            self._refuse(connection, channel, _full(channel, most))
            return True
        if member is None or most_members is None or count.users < most_members:
            return False
        members = await self._presence.members(app.id, channel)
        if any(other.user_id == member.user_id for other in members):
            return False
        self._refuse(connection, channel, f"{channel} has {most_members} members, the most it may have", member.user_id)
        return True

    def refuse_last(self, connection: Connection, channel: str, arrival: Arrival) -> bool:
        """Refuse a connection that has just joined as one too many; it must leave again."""
        most = self._policies.of(connection.app.id, channel).max_subscribers
        if most is None or arrival.subscriptions <= most or self._comes_back(connection, channel):
            return False
        self._refuse(connection, channel, _full(channel, most))
        return True

    def _comes_back(self, connection: Connection, channel: str) -> bool:
        """Whether the place of its lost connection may still be counted, and is given back when it has joined."""
        session = connection.client_session
        if session is None or channel not in session.former:
            return False
        return self._policies.of(connection.app.id, channel).presence_grace_s > 0

    def _refuse(self, connection: Connection, channel: str, reason: str, user_id: str = "") -> None:
        connection.write(text_frame(connection.session.refused(channel, reason).frame))
        socket_id, user_id = connection.session.socket_id, user_id or connection.session.user_id
        self._feed.problem("refused", connection.app.id, reason, channel=channel, user_id=user_id, socket_id=socket_id)


def _full(channel: str, most: int) -> str:
    return f"{channel} has {most} subscribers, the most it may have"
