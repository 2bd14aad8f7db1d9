"""The channels of a campaign, and who may subscribe to them."""

from __future__ import annotations

from sqlalchemy import select

from smartlink.broadcasting import ChannelRules, Member, PresenceChannel, PrivateChannel
from smartlink.portal.campaigns.model import Campaign
from smartlink.portal.shared.db import Database
from smartlink.portal.users.channels import member_of
from smartlink.portal.users.service import Principal

__all__ = ["add_rules", "campaign_channel", "viewers_channel"]


def campaign_channel(campaign_id: int) -> PrivateChannel:
    """Return the channel of a campaign's changes. Its viewers are on the presence channel of the same name."""
    return PrivateChannel(f"campaign.{campaign_id}")


def viewers_channel(campaign_id: int) -> PresenceChannel:
    """Return the channel whose members have the campaign open."""
    return PresenceChannel(f"campaign.{campaign_id}")


def add_rules(rules: ChannelRules, database: Database) -> None:
    """Allow the campaign's owner and admins."""

    async def may_view(user: Principal, campaign_id: int) -> bool:
        if not user.can("campaigns:read"):
            return False
        async with database.reading() as session:
            owner = await session.scalar(select(Campaign.user_id).where(Campaign.id == campaign_id))
        return owner is not None and (user.is_admin or owner == user.id)

    @rules.private("campaign.{campaign_id}")
    async def changes(user: Principal, campaign_id: int) -> bool:
        return await may_view(user, campaign_id)

    @rules.presence("campaign.{campaign_id}")
    async def viewers(user: Principal, campaign_id: int) -> Member | bool:
        return member_of(user) if await may_view(user, campaign_id) else False
