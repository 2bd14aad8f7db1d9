"""The port `WebhookSink` and its events. Source: Pusher Channels, "Webhooks"."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from smartlink.protocol.names import is_internal, signed_in_user
from smartlink.server.apps.base import App

__all__ = ["OutgoingEvent", "WebhookSink", "vacated"]


@dataclass(frozen=True, slots=True)
class OutgoingEvent:
    """One event as it appears in a body; fields that are None are omitted. Names are in `forms.EVENT_NAMES`.

    The `channel` of a user event is internal and omitted too.
    """

    name: str
    channel: str
    user_id: str | None = None
    event: str | None = None
    data: str | None = None
    socket_id: str | None = None
    subscription_count: int | None = None
    id: str | None = None


def vacated(channel: str) -> OutgoingEvent | None:
    """The webhook event when the last connection leaves a channel; None for internal channels."""
    if (user_id := signed_in_user(channel)) is not None:
        return OutgoingEvent("user_offline", channel, user_id)
    return None if is_internal(channel) else OutgoingEvent("channel_vacated", channel)


class WebhookSink(Protocol):
    """Accepts events of channels, in order, and delivers them to the app's addresses that want them."""

    def emit(self, app: App, event: OutgoingEvent) -> None:
        """Queue one event. Synchronous; never blocks or raises."""
