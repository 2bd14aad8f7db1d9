"""Events about notifications."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from smartlink.broadcasting import BroadcastEvent, PrivateChannel
from smartlink.portal.notifications.schemas import NotificationOut
from smartlink.portal.users.channels import user_channel
from smartlink.portal.users.schemas import Profile

__all__ = [
    "EchoNotification",
    "NotificationChanged",
    "NotificationCreated",
    "NotificationRead",
    "NotificationsRead",
]


@dataclass(frozen=True)
class NotificationCreated(BroadcastEvent):
    """`user` has a new notification."""

    notification: NotificationOut
    user: Profile

    def broadcast_on(self) -> PrivateChannel:
        return user_channel(self.user.id)


@dataclass(frozen=True)
class NotificationChanged(BroadcastEvent):
    """What a notification of `user` is about was edited or deleted: this is the notification now."""

    notification: NotificationOut
    user: Profile

    def broadcast_on(self) -> PrivateChannel:
        return user_channel(self.user.id)


@dataclass(frozen=True)
class EchoNotification(BroadcastEvent):
    """A new notification, in the form that Echo's `.notification()` listens for."""

    notification: NotificationOut
    user_id: int

    def broadcast_on(self) -> PrivateChannel:
        return user_channel(self.user_id)

    def broadcast_as(self) -> str:
        return "Illuminate\\Notifications\\Events\\BroadcastNotificationCreated"

    def broadcast_with(self) -> Mapping[str, object]:
        notification = self.notification.root
        return dict(notification.data) | {"id": notification.id, "type": notification.type}


@dataclass(frozen=True)
class NotificationRead(BroadcastEvent):
    """`user` has read a notification."""

    notificationId: int  # noqa: N815 - the payload's key
    user: Profile

    def broadcast_on(self) -> PrivateChannel:
        return user_channel(self.user.id)


@dataclass(frozen=True)
class NotificationsRead(BroadcastEvent):
    """`user` has read several notifications: those listed, or all up to `upTo` if the list is empty."""

    notificationIds: Sequence[int]  # noqa: N815 - the payload's key
    upTo: int  # noqa: N815 - the payload's key
    user: Profile

    def broadcast_on(self) -> PrivateChannel:
        return user_channel(self.user.id)
