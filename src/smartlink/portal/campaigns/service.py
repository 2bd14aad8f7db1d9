"""Campaigns: list, create, change, activate, delete."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from sqlalchemy import Select, delete, select, update
from sqlalchemy.orm import selectinload

from smartlink.broadcasting import BroadcastEvent
from smartlink.portal.campaigns.channels import campaign_channel, viewers_channel
from smartlink.portal.campaigns.events import (
    BudgetChanged,
    CampaignActivated,
    CampaignCreated,
    CampaignDeactivated,
    CampaignDeleted,
    CampaignUpdated,
)
from smartlink.portal.campaigns.model import Campaign, CampaignActivity
from smartlink.portal.campaigns.schemas import ActivityOut, CampaignChange, CampaignOut, NewCampaign
from smartlink.portal.notifications.service import notify
from smartlink.portal.shared.errors import Conflict, Invalid, NotFound
from smartlink.portal.shared.money import money_text
from smartlink.portal.shared.paging import Page, ordered, within
from smartlink.portal.shared.unit_of_work import Announcer, UnitOfWork
from smartlink.portal.users.channel_revocations import ChannelRevocations
from smartlink.portal.users.channels import user_channel
from smartlink.portal.users.model import User
from smartlink.portal.users.schemas import Profile
from smartlink.portal.users.service import Principal

__all__ = ["FOLLOWERS", "Campaigns", "activity_of", "listed"]

Versions = tuple[int, ...]
"""The versions that a change expects; it is refused unless all equal the current one."""

FOLLOWERS = {"draft": ("active",), "active": ("inactive",), "inactive": ("active",)}
"""The statuses that may follow each status."""


def listed(owner_id: int | None, page: Page, status: str | None = None) -> Select[Campaign]:
    """Select a page of campaigns, of one owner or of all: newest first, or oldest first after an id."""
    found = select(Campaign).where(*within(Campaign.id, page))
    if owner_id is not None:
        found = found.where(Campaign.user_id == owner_id)
    if status is not None:
        found = found.where(Campaign.status == status)
    return found.order_by(ordered(Campaign.id, page)).limit(page.limit)


def activity_of(campaign_id: int, page: Page) -> Select[CampaignActivity]:
    """Select a page of a campaign's activity, ordered like `listed`."""
    found = select(CampaignActivity).where(
        CampaignActivity.campaign_id == campaign_id, *within(CampaignActivity.id, page)
    )
    found = found.options(selectinload(CampaignActivity.user))
    return found.order_by(ordered(CampaignActivity.id, page)).limit(page.limit)


class Campaigns:
    """The caller's campaigns, or everyone's for admins. All methods but `page` and `create` raise NotFound."""

    def __init__(
        self,
        announcer: Announcer,
        revocations: ChannelRevocations,
        now: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC),
    ) -> None:
        self._announcer = announcer
        self._revocations = revocations
        self._now = now

    async def page(self, caller: Principal, page: Page, status: str | None) -> tuple[list[CampaignOut], int]:
        """Return a page of campaigns, and the last event on the caller's channel that it includes."""
        async with self._announcer.database.reading() as session:
            event_id = await self._announcer.outbox.latest_id(session, str(user_channel(caller.id)))
            found = listed(None if caller.is_admin else caller.id, page, status)
            rows = (await session.scalars(found)).all()
        return [CampaignOut.model_validate(row) for row in rows], event_id

    async def show(self, caller: Principal, campaign_id: int) -> tuple[CampaignOut, int]:
        """Return a campaign, and the last event on its channel that it includes."""
        async with self._announcer.database.reading() as session:
            event_id = await self._announcer.outbox.latest_id(session, str(campaign_channel(campaign_id)))
            row = await session.get(Campaign, campaign_id)
        return CampaignOut.model_validate(_visible(row, caller)), event_id

    async def activity(self, caller: Principal, campaign_id: int, page: Page) -> list[ActivityOut]:
        """Return a page of a campaign's activity, newest first."""
        async with self._announcer.database.reading() as session:
            _visible(await session.get(Campaign, campaign_id), caller)
            rows = (await session.scalars(activity_of(campaign_id, page))).all()
        return [ActivityOut.model_validate(row) for row in rows]

    async def create(self, caller: Principal, new: NewCampaign) -> CampaignOut:
        """Create a campaign of the caller. Raises Invalid for inconsistent dates."""
        now = self._now()
        _check_dates(new.starts_at, new.ends_at)
        self._check_end(new.status, new.ends_at)
        async with self._announcer.work() as work:
            row = Campaign(
                user_id=caller.id,
                name=new.name,
                description=new.description,
                status=new.status,
                budget=new.budget,
                starts_at=new.starts_at,
                ends_at=new.ends_at,
                version=1,
                created_at=now,
                updated_at=now,
            )
            work.session.add(row)
            await work.session.flush()
            campaign = CampaignOut.model_validate(row)
            self._note(work, caller, campaign, "created", {})
            work.announce(CampaignCreated(campaign))
            if campaign.status == "active":
                work.announce(CampaignActivated(campaign))
        return campaign

    async def change(
        self, caller: Principal, campaign_id: int, change: CampaignChange, meant: Versions = ()
    ) -> CampaignOut:
        """Change the given fields. Raises Conflict for an outdated version, Invalid for a wrong status or dates."""
        wanted = {name: getattr(change, name) for name in change.model_fields_set - {"version"}}
        async with self._announcer.work() as work:
            old = await self._current(work, caller, campaign_id, meant)
            new_values = {name: value for name, value in wanted.items() if getattr(old, name) != value}
            ends_at = new_values.get("ends_at", old.ends_at)
            _check_dates(new_values.get("starts_at", old.starts_at), ends_at)
            if "status" in new_values:
                self._check_status(old, new_values["status"])
                self._check_end(new_values["status"], ends_at)
            if not new_values:
                return old
            campaign = await self._store(work, old, new_values)
            await self._announce(
                work, caller, campaign, "updated", _changes(old, new_values), CampaignUpdated(campaign)
            )
            if "budget" in new_values:
                work.announce(BudgetChanged(campaign, old.budget, campaign.budget))
            if "status" in new_values:
                work.announce(_status_event(campaign))
        return campaign

    async def set_budget(
        self, caller: Principal, campaign_id: int, budget: Decimal, meant: Versions = ()
    ) -> CampaignOut:
        """Change the budget; setting the same budget changes nothing. Raises Conflict for an outdated version."""
        async with self._announcer.work() as work:
            old = await self._current(work, caller, campaign_id, meant)
            if old.budget == budget:
                return old
            campaign = await self._store(work, old, {"budget": budget})
            event = BudgetChanged(campaign, old.budget, budget)
            await self._announce(work, caller, campaign, "budget", _changes(old, {"budget": budget}), event)
        return campaign

    async def set_status(self, caller: Principal, campaign_id: int, status: str, meant: Versions = ()) -> CampaignOut:
        """Activate or deactivate. Raises Invalid for a disallowed status, Conflict for an outdated version."""
        async with self._announcer.work() as work:
            old = await self._current(work, caller, campaign_id, meant)
            self._check_status(old, status)
            self._check_end(status, old.ends_at)
            campaign = await self._store(work, old, {"status": status})
            action = "activated" if status == "active" else "deactivated"
            await self._announce(
                work, caller, campaign, action, _changes(old, {"status": status}), _status_event(campaign)
            )
        return campaign

    async def delete(self, caller: Principal, campaign_id: int, meant: Versions = ()) -> None:
        """Delete a campaign and its activity; everyone leaves its channels. Raises Conflict for an outdated version."""
        async with self._announcer.work() as work:
            campaign = await self._current(work, caller, campaign_id, meant)
            await work.session.execute(delete(Campaign).where(Campaign.id == campaign_id))
            work.announce(CampaignDeleted(campaign))
            await self._notify_owner(work, caller, campaign, "deleted")
            channels = (campaign_channel(campaign_id), viewers_channel(campaign_id))
            self._revocations.everyone(work.session, channels, "This campaign was deleted")
        self._revocations.begin()

    async def _current(self, work: UnitOfWork, caller: Principal, campaign_id: int, meant: Versions) -> CampaignOut:
        """Return the campaign, locked until the unit of work ends."""
        row = await work.session.scalar(select(Campaign).where(Campaign.id == campaign_id).with_for_update())
        campaign = CampaignOut.model_validate(_visible(row, caller))
        if any(version != campaign.version for version in meant):
            raise Conflict(campaign.version)
        return campaign

    async def _store(self, work: UnitOfWork, old: CampaignOut, values: dict[str, Any]) -> CampaignOut:
        row = await work.session.scalar(
            update(Campaign)
            .where(Campaign.id == old.id)
            .values(version=old.version + 1, updated_at=self._now(), **values)
            .returning(Campaign)
            .execution_options(populate_existing=True)
        )
        return CampaignOut.model_validate(row)

    async def _announce(
        self,
        work: UnitOfWork,
        caller: Principal,
        campaign: CampaignOut,
        action: str,
        changes: dict[str, Any],
        event: BroadcastEvent,
    ) -> None:
        self._note(work, caller, campaign, action, changes)
        work.announce(event)
        await self._notify_owner(work, caller, campaign, action)

    def _note(
        self, work: UnitOfWork, caller: Principal, campaign: CampaignOut, action: str, changes: dict[str, Any]
    ) -> None:
        work.session.add(
            CampaignActivity(
                campaign_id=campaign.id, user_id=caller.id, action=action, changes=changes, created_at=self._now()
            )
        )

    async def _notify_owner(self, work: UnitOfWork, caller: Principal, campaign: CampaignOut, action: str) -> None:
        """Notify the owner, unless the caller is the owner."""
        if caller.id == campaign.user_id:
            return
        owner = Profile.model_validate(await work.session.get(User, campaign.user_id))
        data = {
            "campaign_id": campaign.id,
            "name": campaign.name,
            "action": action,
            "by": {"id": caller.id, "name": caller.name},
        }
        await notify(work, owner, "campaign_changed", data)

    def _check_status(self, campaign: CampaignOut, status: str) -> None:
        allowed = FOLLOWERS[campaign.status]
        if status not in allowed:
            raise Invalid(
                {"status": [f"A campaign with the status {campaign.status} can only become {' or '.join(allowed)}."]}
            )

    def _check_end(self, status: str, ends_at: dt.datetime | None) -> None:
        if status == "active" and ends_at is not None and ends_at <= self._now():
            raise Invalid({"ends_at": ["This campaign has already ended."]})


def _visible(row: Campaign | None, caller: Principal) -> Campaign:
    if row is None or not (caller.is_admin or row.user_id == caller.id):
        raise NotFound
    return row


def _check_dates(starts_at: dt.datetime | None, ends_at: dt.datetime | None) -> None:
    if starts_at is not None and ends_at is not None and ends_at <= starts_at:
        raise Invalid({"ends_at": ["The ends at field must be after starts at."]})


def _status_event(campaign: CampaignOut) -> BroadcastEvent:
    return CampaignActivated(campaign) if campaign.status == "active" else CampaignDeactivated(campaign)


def _changes(old: CampaignOut, values: dict[str, Any]) -> dict[str, Any]:
    return {name: [_json(getattr(old, name)), _json(value)] for name, value in values.items()}


def _json(value: Any) -> Any:
    if isinstance(value, Decimal):
        return money_text(value)
    if isinstance(value, dt.datetime):
        return value.astimezone(dt.UTC).isoformat().replace("+00:00", "Z")
    return value
