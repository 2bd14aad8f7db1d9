"""The endpoints of campaigns."""

from __future__ import annotations

import re
from typing import Annotated

from fastapi import Depends, Header, Query, Request, Response

from smartlink.portal.campaigns.schemas import (
    ActivityOut,
    CampaignChange,
    CampaignOut,
    NewBudget,
    NewCampaign,
    Status,
    StatusChange,
)
from smartlink.portal.campaigns.service import Campaigns
from smartlink.portal.shared.answers import raises, shows
from smartlink.portal.shared.errors import Conflict, Invalid
from smartlink.portal.shared.paging import EVENT_ID, PathId, WhichPage
from smartlink.portal.shared.routing import feature_router
from smartlink.portal.users.identity import able
from smartlink.portal.users.service import Principal

__all__ = ["router"]

_CHANGED = shows("ETag") | raises(Conflict)
_ETAG = re.compile(r'(?:W/)?"?([1-9][0-9]{0,9})"?\Z')

router = feature_router(prefix="/api/campaigns", tags=["campaigns"])


async def _campaigns(request: Request) -> Campaigns:
    campaigns: Campaigns = request.app.state.campaigns
    return campaigns


async def _if_match(
    if_match: Annotated[
        str | None,
        Header(description='The expected version, as "3"', json_schema_extra={"pattern": '^"[1-9][0-9]{0,8}"$'}),
    ] = None,
) -> int | None:
    """Return the version in If-Match, or None for `*` or no header. Raises Invalid."""
    if if_match is None or if_match.strip() == "*":
        return None
    found = _ETAG.match(if_match.strip())
    if found is None:
        raise Invalid({"If-Match": ['If-Match must be a version, as in If-Match: "3".']})
    return int(found[1])


Service = Annotated[Campaigns, Depends(_campaigns)]
Reader = Annotated[Principal, able("campaigns:read")]
Creator = Annotated[Principal, able("campaigns:write", limit="campaign")]
Writer = Annotated[Principal, able("campaigns:write", limit="change")]
Matching = Annotated[int | None, Depends(_if_match)]


def _meant(in_body: int | None, in_header: int | None) -> tuple[int, ...]:
    """Return the versions that a change expects: none, one, or two that should be equal."""
    return tuple(version for version in (in_body, in_header) if version is not None)


def _tagged(response: Response, campaign: CampaignOut) -> CampaignOut:
    response.headers["ETag"] = f'"{campaign.version}"'
    return campaign


@router.get("", responses=shows(EVENT_ID))
async def list_campaigns(
    caller: Reader,
    which: WhichPage,
    service: Service,
    response: Response,
    status: Annotated[Status | None, Query(description="Only campaigns with this status")] = None,
) -> list[CampaignOut]:
    """List your campaigns, newest first. Admins see all campaigns."""
    campaigns, event_id = await service.page(caller, which, status)
    response.headers[EVENT_ID] = str(event_id)
    return campaigns


@router.post("", status_code=201, responses=shows("ETag", status=201))
async def create_campaign(body: NewCampaign, caller: Creator, service: Service, response: Response) -> CampaignOut:
    """Create a campaign."""
    return _tagged(response, await service.create(caller, body))


@router.get("/{campaign_id}", responses=shows("ETag", EVENT_ID))
async def show_campaign(campaign_id: PathId, caller: Reader, service: Service, response: Response) -> CampaignOut:
    """Show a campaign. ETag: its version. X-Event-Id: the last event it includes."""
    campaign, event_id = await service.show(caller, campaign_id)
    response.headers[EVENT_ID] = str(event_id)
    return _tagged(response, campaign)


@router.get("/{campaign_id}/activity")
async def campaign_activity(
    campaign_id: PathId, caller: Reader, which: WhichPage, service: Service
) -> list[ActivityOut]:
    """List the activity of a campaign, newest first."""
    return await service.activity(caller, campaign_id, which)


@router.patch("/{campaign_id}", responses=_CHANGED)
async def change_campaign(
    campaign_id: PathId, body: CampaignChange, caller: Writer, service: Service, matching: Matching, response: Response
) -> CampaignOut:
    """Change a campaign; omitted fields stay as they are. 409 if `version` or If-Match is not the current version."""
    return _tagged(response, await service.change(caller, campaign_id, body, _meant(body.version, matching)))


@router.put("/{campaign_id}/budget", responses=_CHANGED)
async def set_budget(
    campaign_id: PathId, body: NewBudget, caller: Writer, service: Service, matching: Matching, response: Response
) -> CampaignOut:
    """Change a campaign's budget."""
    meant = _meant(body.version, matching)
    return _tagged(response, await service.set_budget(caller, campaign_id, body.budget, meant))


@router.post("/{campaign_id}/activate", responses=_CHANGED)
async def activate(
    campaign_id: PathId,
    caller: Writer,
    service: Service,
    matching: Matching,
    response: Response,
    body: StatusChange | None = None,
) -> CampaignOut:
    """Activate a campaign."""
    meant = _meant(None if body is None else body.version, matching)
    return _tagged(response, await service.set_status(caller, campaign_id, "active", meant))


@router.post("/{campaign_id}/deactivate", responses=_CHANGED)
async def deactivate(
    campaign_id: PathId,
    caller: Writer,
    service: Service,
    matching: Matching,
    response: Response,
    body: StatusChange | None = None,
) -> CampaignOut:
    """Deactivate a campaign."""
    meant = _meant(None if body is None else body.version, matching)
    return _tagged(response, await service.set_status(caller, campaign_id, "inactive", meant))


@router.delete("/{campaign_id}", status_code=204, responses=raises(Conflict))
async def delete_campaign(campaign_id: PathId, caller: Writer, service: Service, matching: Matching) -> Response:
    """Delete a campaign. 409 if If-Match is not the current version."""
    await service.delete(caller, campaign_id, _meant(None, matching))
    return Response(status_code=204)
