"""Request and response schemas of campaigns."""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from smartlink.portal.shared.money import Amount, Money
from smartlink.portal.shared.text import Name, PlainText
from smartlink.portal.shared.times import Moment
from smartlink.portal.users.schemas import Profile

__all__ = ["ActivityOut", "CampaignChange", "CampaignOut", "NewBudget", "NewCampaign", "Status", "StatusChange"]

MAX_VERSION = 2**31 - 1

Status = Literal["draft", "active", "inactive"]
Description = Annotated[PlainText, Field(max_length=5_000)]
Version = Annotated[int, Field(strict=True, ge=1, le=MAX_VERSION)]


def _never_null(schema: dict[str, Any]) -> None:
    """Describe a field that may be omitted but must not be null."""
    kinds = [kind for kind in schema.pop("anyOf") if kind.get("type") != "null"]
    schema.pop("default", None)
    schema.update(kinds[0] if len(kinds) == 1 else {"anyOf": kinds})


class NewCampaign(BaseModel):
    """A campaign to create, as a draft or active."""

    name: Name
    description: Description | None = None
    budget: Amount
    status: Literal["draft", "active"] = "draft"
    starts_at: Moment | None = None
    ends_at: Moment | None = None


class CampaignChange(BaseModel):
    """Changes to a campaign. Omitted fields stay as they are. `version` is the expected one, if given."""

    name: Name | None = Field(None, json_schema_extra=_never_null)
    description: Description | None = None
    budget: Amount | None = Field(None, json_schema_extra=_never_null)
    status: Status | None = Field(None, json_schema_extra=_never_null)
    starts_at: Moment | None = None
    ends_at: Moment | None = None
    version: Version | None = None

    @field_validator("name", "budget", "status", mode="before")
    @classmethod
    def _given(cls, value: object) -> object:
        if value is None:
            raise ValueError("must not be null")
        return value


class NewBudget(BaseModel):
    """A new budget, and the expected version."""

    budget: Amount
    version: Version | None = None


class StatusChange(BaseModel):
    """The expected version of a campaign to activate or deactivate."""

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
    """An action on a campaign: by whom, when, and its changes, `{field: [old, new]}`."""

    model_config = ConfigDict(from_attributes=True)

    id: int
    action: str
    changes: dict[str, list[Any]]
    user: Profile
    created_at: dt.datetime
