"""The channels of chat, and who may subscribe to them."""

from __future__ import annotations

from smartlink.broadcasting import Channel, ChannelRules, PrivateChannel
from smartlink.portal.users.service import Principal

__all__ = ["add_rules", "conversation_channel", "general_channel"]


def general_channel() -> Channel:
    """Return the channel of general chat, open to everyone with the app key."""
    return Channel("chat")


def conversation_channel(one: int, other: int) -> PrivateChannel:
    """Return the channel of two users' direct messages. Its name has the lower id first, compared as numbers."""
    return PrivateChannel(f"chat.{min(one, other)}.{max(one, other)}")


def add_rules(rules: ChannelRules) -> None:
    """Allow the two participants on their conversation's channel."""

    @rules.private("chat.{low}.{high}")
    def the_two(user: Principal, low: int, high: int) -> bool:
        return 0 < low < high and user.id in (low, high) and user.can("chat:read")
