"""Who may listen to what concerns one user."""

from __future__ import annotations

from smartlink.broadcasting import ChannelRules, Member, PrivateChannel
from smartlink.portal.users.service import Principal

__all__ = ["add_rules", "member_of", "user_channel"]


def user_channel(user_id: int) -> PrivateChannel:
    """The channel only this user hears: notifications, read receipts."""
    return PrivateChannel(f"user.{user_id}")


def member_of(user: Principal) -> Member:
    """Who a user is on the wire."""
    return Member(user.id, {"id": user.id, "name": user.name})


def add_rules(rules: ChannelRules) -> None:
    """Let users hear their own channel, and admins theirs."""

    @rules.private("user.{user_id}")
    def own(user: Principal, user_id: int) -> bool:
        # What it carries: notifications, receipts with the message that was read, and campaigns that came and went.
        return user.id == user_id and user.can("notifications:read", "chat:read", "campaigns:read")

    @rules.private("financial.{user_id}")
    def own_money(user: Principal, user_id: int) -> bool:
        return user.id == user_id and user.can("wallet:read")

    @rules.private("admin")
    def admins(user: Principal) -> bool:
        return user.is_admin and user.can("admin:read")
