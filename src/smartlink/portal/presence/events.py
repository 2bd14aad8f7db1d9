"""What is announced when somebody comes online or goes: state, since it can be asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from smartlink.broadcasting import BroadcastEvent, PresenceChannel, Promise
from smartlink.portal.presence.channels import chat_presence

__all__ = ["UserJoined", "UserLeft"]


@dataclass(frozen=True)
class UserJoined(BroadcastEvent):
    """A user's first socket came."""

    promise: ClassVar[Promise] = Promise.STATE

    id: int
    name: str

    def broadcast_on(self) -> PresenceChannel:
        return chat_presence()


@dataclass(frozen=True)
class UserLeft(BroadcastEvent):
    """A user's last socket ended."""

    promise: ClassVar[Promise] = Promise.STATE

    id: int
    name: str

    def broadcast_on(self) -> PresenceChannel:
        return chat_presence()
