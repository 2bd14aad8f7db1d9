"""Events about campaigns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from smartlink.broadcasting import BroadcastEvent, PrivateChannel
from smartlink.portal.campaigns.channels import campaign_channel
from smartlink.portal.campaigns.schemas import CampaignOut
from smartlink.portal.shared.money import money_text
from smartlink.portal.users.channels import user_channel

__all__ = [
    "BudgetChanged",
    "CampaignActivated",
    "CampaignCreated",
    "CampaignDeactivated",
    "CampaignDeleted",
    "CampaignUpdated",
]


@dataclass(frozen=True)
class _OfCampaign(BroadcastEvent):
    """Sent to everyone who may see the campaign."""

    campaign: CampaignOut

    def broadcast_on(self) -> PrivateChannel:
        return campaign_channel(self.campaign.id)


@dataclass(frozen=True)
class _OfOwner(BroadcastEvent):
    """Sent to the campaign's owner."""

    campaign: CampaignOut

    def broadcast_on(self) -> PrivateChannel:
        return user_channel(self.campaign.user_id)


class CampaignCreated(_OfOwner):
    """A campaign was created."""


class CampaignDeleted(_OfOwner):
    """A campaign was deleted; `campaign` is its last state."""


class CampaignUpdated(_OfCampaign):
    """A campaign was changed."""


class CampaignActivated(_OfCampaign):
    """A campaign was activated."""


class CampaignDeactivated(_OfCampaign):
    """A campaign was deactivated."""


@dataclass(frozen=True)
class BudgetChanged(_OfCampaign):
    """A campaign's budget was changed."""

    old_budget: Decimal
    new_budget: Decimal

    def broadcast_with(self) -> Mapping[str, object]:
        return {
            "campaign": self.campaign,
            "oldBudget": money_text(self.old_budget),
            "newBudget": money_text(self.new_budget),
        }
