"""What is announced about notifications."""

from __future__ import annotations

from dataclasses import dataclass

from smartlink.broadcasting import BroadcastEvent, PrivateChannel
from smartlink.portal.notifications.schemas import NotificationOut
from smartlink.portal.users.channels import user_channel
from smartlink.portal.users.schemas import Profile

__all__ = ["NotificationCreated"]


@dataclass(frozen=True)
class NotificationCreated(BroadcastEvent):
    """A notification came for `user`."""

    notification: NotificationOut
    user: Profile

    def broadcast_on(self) -> PrivateChannel:
        return user_channel(self.user.id)
