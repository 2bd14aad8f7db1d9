"""Events about users."""

from __future__ import annotations

from dataclasses import dataclass

from smartlink.broadcasting import BroadcastEvent, PresenceChannel
from smartlink.portal.users.schemas import Profile

__all__ = ["EVERYBODY", "UserUpdated"]

EVERYBODY = PresenceChannel("chat")
"""The channel that every signed-in user may subscribe to."""


@dataclass(frozen=True)
class UserUpdated(BroadcastEvent):
    """A user changed their name."""

    user: Profile

    def broadcast_on(self) -> PresenceChannel:
        return EVERYBODY
