"""The channel of users who are online, and who may subscribe to it."""

from __future__ import annotations

from smartlink.broadcasting import ChannelRules, PresenceChannel
from smartlink.portal.users.service import Principal

__all__ = ["CHAT_PRESENCE", "add_rules", "chat_presence"]

CHAT_PRESENCE = "presence-chat"


def chat_presence() -> PresenceChannel:
    """Return the channel whose members are online."""
    return PresenceChannel("chat")


def add_rules(rules: ChannelRules) -> None:
    """Allow every signed-in user who may read chat, as `{id, name}`."""

    @rules.presence("chat")
    def everybody(user: Principal) -> dict[str, object] | bool:
        return user.can("chat:read") and {"id": user.id, "name": user.name}
