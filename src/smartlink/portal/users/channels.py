"""Channels of one user, and who may subscribe to them."""

from __future__ import annotations

from smartlink.broadcasting import ChannelRules, Member, PrivateChannel
from smartlink.portal.users.service import Principal

__all__ = ["add_rules", "member_of", "user_channel"]


def user_channel(user_id: int) -> PrivateChannel:
    """Return the channel that only this user may subscribe to: notifications, read receipts, campaigns."""
    return PrivateChannel(f"user.{user_id}")


def member_of(user: Principal) -> Member:
    """Return the user as a presence member, `{id, name}`."""
    return Member(user.id, {"id": user.id, "name": user.name})


def add_rules(rules: ChannelRules) -> None:
    """Allow users on their own channels, and admins on theirs."""

    @rules.private("user.{user_id}")
    def own(user: Principal, user_id: int) -> bool:
        # It carries notifications, read receipts with their messages, and created and deleted campaigns.
        return user.id == user_id and user.can("notifications:read", "chat:read", "campaigns:read")

    @rules.private("financial.{user_id}")
    def own_money(user: Principal, user_id: int) -> bool:
        return user.id == user_id and user.can("wallet:read")

    @rules.private("admin")
    def admins(user: Principal) -> bool:
        return user.is_admin and user.can("admin:read")
