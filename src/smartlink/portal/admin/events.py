"""Live events for admins, and events that admins cause."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from smartlink.broadcasting import BroadcastEvent, Channel, Delivery, PrivateChannel
from smartlink.portal.admin.schemas import ConsoleEntry, Figures
from smartlink.portal.users.channels import user_channel

__all__ = ["AdminEvent", "AdminFigures", "RightsChanged", "WrittenByHand", "admin_channel"]


def admin_channel() -> PrivateChannel:
    """Return the admins' channel."""
    return PrivateChannel("admin")


@dataclass(frozen=True)
class AdminFigures(BroadcastEvent):
    """The system's figures, every second while an admin has the page open."""

    delivery: ClassVar[Delivery] = Delivery.LIVE

    figures: Figures

    def broadcast_on(self) -> PrivateChannel:
        return admin_channel()


@dataclass(frozen=True)
class AdminEvent(BroadcastEvent):
    """A new entry in the live console."""

    delivery: ClassVar[Delivery] = Delivery.LIVE

    entry: ConsoleEntry

    def broadcast_on(self) -> PrivateChannel:
        return admin_channel()


@dataclass(frozen=True)
class RightsChanged(BroadcastEvent):
    """The user has become an admin, or is one no more."""

    delivery: ClassVar[Delivery] = Delivery.STATE

    user_id: int
    is_admin: bool

    def broadcast_on(self) -> PrivateChannel:
        return user_channel(self.user_id)

    def broadcast_with(self) -> Mapping[str, object]:
        return {"is_admin": self.is_admin}


@dataclass(frozen=True)
class WrittenByHand(BroadcastEvent):
    """An event written by an admin."""

    channel: Channel
    name: str
    data: Mapping[str, Any]

    def broadcast_on(self) -> Channel:
        return self.channel

    def broadcast_as(self) -> str:
        return self.name

    def broadcast_with(self) -> Mapping[str, object]:
        return self.data
