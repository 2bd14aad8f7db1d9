"""The response schemas of notifications. The type of a notification says what its data contains."""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, RootModel

from smartlink.portal.users.schemas import Profile

__all__ = ["CampaignNotification", "MessageNotification", "NotificationOut", "TransactionNotification"]


class AboutMessage(BaseModel):
    """A direct message that was received; `excerpt` is how it begins, empty once it was deleted."""

    message_id: int
    sender: Profile
    excerpt: str


class AboutCampaign(BaseModel):
    """A change of one's campaign by someone else."""

    campaign_id: int
    name: str
    action: Literal["updated", "budget", "activated", "deactivated", "deleted"]
    by: Profile


class AboutTransaction(BaseModel):
    """A transaction of one's wallet, and the balance after it."""

    transaction_id: int
    amount: str
    currency: str
    balance: str


class _Notification(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: int
    read_at: dt.datetime | None
    created_at: dt.datetime


class MessageNotification(_Notification):
    """A notification of a direct message."""

    type: Literal["private_message"]
    data: AboutMessage


class CampaignNotification(_Notification):
    """A notification of a changed campaign."""

    type: Literal["campaign_changed"]
    data: AboutCampaign


class TransactionNotification(_Notification):
    """A notification of a deposit or withdrawal."""

    type: Literal["deposit", "withdrawal"]
    data: AboutTransaction


class NotificationOut(
    RootModel[
        Annotated[MessageNotification | CampaignNotification | TransactionNotification, Field(discriminator="type")]
    ]
):
    """A notification."""

    model_config = ConfigDict(from_attributes=True)
