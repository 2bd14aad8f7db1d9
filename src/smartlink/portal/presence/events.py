"""What is announced when somebody comes online or goes: state, since it can be asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from smartlink.broadcasting import BroadcastEvent, Delivery, PresenceChannel
from smartlink.portal.presence.channels import chat_presence

__all__ = ["UserJoined", "UserLeft"]


@dataclass(frozen=True)
class UserJoined(BroadcastEvent):
    """A user's first socket came."""

    delivery: ClassVar[Delivery] = Delivery.STATE

    id: int
    name: str

    def broadcast_on(self) -> PresenceChannel:
        return chat_presence()


@dataclass(frozen=True)
class UserLeft(BroadcastEvent):
    """A user's last socket ended."""

    delivery: ClassVar[Delivery] = Delivery.STATE

    id: int
    name: str

    def broadcast_on(self) -> PresenceChannel:
        return chat_presence()
