"""Events about users who come online or go offline. They are state: clients can query who is online."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from smartlink.broadcasting import BroadcastEvent, Delivery, PresenceChannel
from smartlink.portal.presence.channels import chat_presence

__all__ = ["UserJoined", "UserLeft"]


@dataclass(frozen=True)
class UserJoined(BroadcastEvent):
    """A user came online with their first connection."""

    delivery: ClassVar[Delivery] = Delivery.STATE

    id: int
    name: str

    def broadcast_on(self) -> PresenceChannel:
        return chat_presence()


@dataclass(frozen=True)
class UserLeft(BroadcastEvent):
    """A user went offline with their last connection."""

    delivery: ClassVar[Delivery] = Delivery.STATE

    id: int
    name: str

    def broadcast_on(self) -> PresenceChannel:
        return chat_presence()
