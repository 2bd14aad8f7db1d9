"""The port `WebhookSink` and what it is told. Source: Pusher Channels, "Webhooks"."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from smartlink.server.apps.base import App

__all__ = ["WebhookEvent", "WebhookSink"]


@dataclass(frozen=True, slots=True)
class WebhookEvent:
    """One event, named as in `forms.EVENT_NAMES`, as it stands in a body; fields that are None are left out there."""

    name: str
    channel: str
    user_id: str | None = None
    event: str | None = None
    data: str | None = None
    socket_id: str | None = None
    subscription_count: int | None = None


class WebhookSink(Protocol):
    """Takes what happened on channels, in order; delivers it to those addresses of the app that want it."""

    def tell(self, app: App, event: WebhookEvent) -> None:
        """Take one event. Plain; never waits, never raises."""
