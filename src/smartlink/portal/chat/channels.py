"""Where chat is heard, and by whom."""

from __future__ import annotations

from smartlink.broadcasting import Channel, ChannelRules, PrivateChannel
from smartlink.portal.users.service import Principal

__all__ = ["add_rules", "conversation_channel", "general_channel"]


def general_channel() -> Channel:
    """General chat; anyone with the app key hears it."""
    return Channel("chat")


def conversation_channel(one: int, other: int) -> PrivateChannel:
    """The channel of two users' direct messages: the lower id first, as numbers."""
    return PrivateChannel(f"chat.{min(one, other)}.{max(one, other)}")


def add_rules(rules: ChannelRules) -> None:
    """Let the two into their conversation."""

    @rules.private("chat.{low}.{high}")
    def the_two(user: Principal, low: int, high: int) -> bool:
        return 0 < low < high and user.id in (low, high) and user.can("chat:read")
