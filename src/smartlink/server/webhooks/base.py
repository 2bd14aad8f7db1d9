"""The port `WebhookSink` and what it is told. Source: Pusher Channels, "Webhooks"."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from smartlink.protocol.names import is_internal, signed_in_user
from smartlink.server.apps.base import App

__all__ = ["OutgoingEvent", "WebhookSink", "vacated"]


@dataclass(frozen=True, slots=True)
class OutgoingEvent:
    """One event, named as in `forms.EVENT_NAMES`, as it stands in a body; fields that are None are left out there.

    `channel` of what is told of a user is the server's own, and is left out, too.
    """

    name: str
    channel: str
    user_id: str | None = None
    event: str | None = None
    data: str | None = None
    socket_id: str | None = None
    subscription_count: int | None = None


def vacated(channel: str) -> OutgoingEvent | None:
    """What webhooks are told when the last connection has left a channel; None where that is the server's business."""
    if (user_id := signed_in_user(channel)) is not None:
        return OutgoingEvent("user_offline", channel, user_id)
    return None if is_internal(channel) else OutgoingEvent("channel_vacated", channel)


class WebhookSink(Protocol):
    """Takes what happened on channels, in order; delivers it to those addresses of the app that want it."""

    def emit(self, app: App, event: OutgoingEvent) -> None:
        """Take one event. Plain; never waits, never raises."""
