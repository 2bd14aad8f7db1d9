"""Campaigns as they are sent and seen."""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, field_validator

from smartlink.portal.shared.money import Amount, Money
from smartlink.portal.shared.text import Name, PlainText
from smartlink.portal.users.schemas import Profile

__all__ = ["ActivityOut", "CampaignChange", "CampaignOut", "NewBudget", "NewCampaign", "Status", "StatusChange"]

MAX_VERSION = 2**31 - 1

Status = Literal["draft", "active", "inactive"]
Description = Annotated[PlainText, Field(max_length=5_000)]
Version = Annotated[int, Field(strict=True, ge=1, le=MAX_VERSION)]


class NewCampaign(BaseModel):
    """A campaign to be; it begins as a draft unless it is to run at once."""

    name: Name
    description: Description | None = None
    budget: Amount
    status: Literal["draft", "active"] = "draft"
    starts_at: AwareDatetime | None = None
    ends_at: AwareDatetime | None = None


class CampaignChange(BaseModel):
    """What is to change; what is left out stays. `version`: refuse when it is not the present one."""

    name: Name | None = None
    description: Description | None = None
    budget: Amount | None = None
    status: Status | None = None
    starts_at: AwareDatetime | None = None
    ends_at: AwareDatetime | None = None
    version: Version | None = None

    @field_validator("name", "budget", "status", mode="before")
    @classmethod
    def _given(cls, value: object) -> object:
        if value is None:
            raise ValueError("must not be null")
        return value


class NewBudget(BaseModel):
    """A budget, and the version it is meant for."""

    budget: Amount
    version: Version | None = None


class StatusChange(BaseModel):
    """The version that activating or deactivating is meant for."""

    version: Version | None = None


class CampaignOut(BaseModel):
    """A campaign."""

    model_config = ConfigDict(from_attributes=True)

    id: int
    user_id: int
    name: str
    description: str | None
    status: Status
    budget: Money
    starts_at: dt.datetime | None
    ends_at: dt.datetime | None
    version: int
    created_at: dt.datetime
    updated_at: dt.datetime


class ActivityOut(BaseModel):
    """One thing that was done to a campaign: by whom, when, and what it changed, `{field: [old, new]}`."""

    model_config = ConfigDict(from_attributes=True)

    id: int
    action: str
    changes: dict[str, list[Any]]
    user: Profile
    created_at: dt.datetime
