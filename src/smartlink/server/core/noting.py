"""What the node tells operators who look. Call these only while somebody does (`feed.watches`, `feed.taps`)."""

from __future__ import annotations

from typing import Final

from smartlink.protocol.session import PresenceMember
from smartlink.server.cluster.brokers.base import Publication
from smartlink.server.core.hub import Connection, Hub
from smartlink.server.runtime.feed import Feed

__all__ = ["note_delivery", "note_membership", "note_publication"]

_CLIENT_EVENT: Final = b'{"event":"client-'


def note_membership(feed: Feed, kind: str, connection: Connection, channel: str, member: PresenceMember | None) -> None:
    """Note that a connection subscribed or unsubscribed."""
    user_id = connection.session.user_id if member is None else member.user_id
    feed.note(kind, connection.app.id, channel=channel, user_id=user_id, socket_id=connection.session.socket_id)


def note_publication(feed: Feed, hub: Hub, app_id: str, channel: str, frame: bytes, sender: str | None) -> None:
    """Note an event, or a client event and who sent it."""
    if not frame.startswith(_CLIENT_EVENT) or sender is None:
        feed.note("publish", app_id, channel=channel, frame=frame)
        return
    connection = hub.connection(app_id, sender)
    user_id = "" if connection is None else connection.session.user_id
    feed.note("client_event", app_id, channel=channel, user_id=user_id, socket_id=sender, frame=frame)


def note_delivery(feed: Feed, hub: Hub, publication: Publication) -> None:
    """Note a publication for each tapped connection that receives it."""
    app_id, channel = publication.app_id, publication.channel
    for socket_id in feed.taps:
        connection = hub.connection(app_id, socket_id)
        if connection is None or socket_id == publication.except_socket or not hub.receives(connection, channel):
            continue
        feed.note("sent", app_id, channel=channel, socket_id=socket_id, frame=publication.frame)
