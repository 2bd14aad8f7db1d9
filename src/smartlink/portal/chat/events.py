"""Events about messages and typing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from smartlink.broadcasting import BroadcastEvent, Channel, Delivery, PrivateChannel
from smartlink.portal.chat.channels import conversation_channel, general_channel
from smartlink.portal.chat.schemas import DirectMessageOut, MessageOut, RoomUnread
from smartlink.portal.users.channels import user_channel
from smartlink.portal.users.schemas import Profile

__all__ = [
    "MessageDeleted",
    "MessageDelivered",
    "MessageRead",
    "MessageSent",
    "MessageUpdated",
    "PrivateMessageSent",
    "UnreadChanged",
    "UserTyping",
]


@dataclass(frozen=True)
class MessageSent(BroadcastEvent):
    """A message was sent to general chat."""

    message: MessageOut

    def broadcast_on(self) -> Channel:
        return general_channel()


@dataclass(frozen=True)
class PrivateMessageSent(BroadcastEvent):
    """A direct message was sent."""

    message: DirectMessageOut

    def broadcast_on(self) -> PrivateChannel:
        recipient_id = self.message.recipient.id
        return conversation_channel(self.message.user_id, recipient_id)


@dataclass(frozen=True)
class MessageUpdated(BroadcastEvent):
    """A message was edited. `version` rises with each change, so that clients can ignore older events."""

    message: MessageOut

    def broadcast_on(self) -> Channel:
        return _channel_of(self.message)


@dataclass(frozen=True)
class MessageDeleted(BroadcastEvent):
    """A message was deleted by its author; its text is empty."""

    message: MessageOut

    def broadcast_on(self) -> Channel:
        return _channel_of(self.message)


@dataclass(frozen=True)
class MessageDelivered(BroadcastEvent):
    """`user`'s page or application has received a direct message. Sent to the message's sender."""

    message: DirectMessageOut
    user: Profile

    def broadcast_on(self) -> PrivateChannel:
        return user_channel(self.message.user_id)


@dataclass(frozen=True)
class MessageRead(BroadcastEvent):
    """`user` has read a direct message. Sent to the message's sender."""

    message: DirectMessageOut
    user: Profile

    def broadcast_on(self) -> PrivateChannel:
        return user_channel(self.message.user_id)


@dataclass(frozen=True)
class UnreadChanged(BroadcastEvent):
    """`user` has read messages, or marked some as unread: what is unread now in these rooms."""

    rooms: Sequence[RoomUnread]
    user: Profile

    def broadcast_on(self) -> PrivateChannel:
        return user_channel(self.user.id)


@dataclass(frozen=True)
class UserTyping(BroadcastEvent):
    """`user` started or stopped typing, in general chat or to one user."""

    delivery: ClassVar[Delivery] = Delivery.LIVE

    user: Profile
    typing: bool
    recipient_id: int | None = None

    def broadcast_on(self) -> Channel:
        if self.recipient_id is None:
            return general_channel()
        return conversation_channel(self.user.id, self.recipient_id)

    def broadcast_with(self) -> Mapping[str, object]:
        return {"user": self.user, "typing": self.typing}


def _channel_of(message: MessageOut) -> Channel:
    if message.recipient_id is None:
        return general_channel()
    return conversation_channel(message.user_id, message.recipient_id)
