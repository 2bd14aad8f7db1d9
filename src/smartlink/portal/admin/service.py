"""The actions of admins. Every change is recorded in the audit log in the same transaction."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Select, literal_column, or_, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import selectinload

from smartlink.broadcasting import Channel
from smartlink.broadcasting.channels import channel_of
from smartlink.broadcasting.errors import BroadcastError
from smartlink.broadcasting.outbox import RETRIED_AT_ONCE, FailedEvents
from smartlink.broadcasting.outbox.tables import FAILED, in_utc
from smartlink.portal.admin.console import Console
from smartlink.portal.admin.events import RightsChanged, WrittenByHand, admin_channel
from smartlink.portal.admin.figures import FigureBoard
from smartlink.portal.admin.model import AuditEntry
from smartlink.portal.admin.schemas import (
    AdminUser,
    AuditOut,
    ChannelOut,
    ConnectionsOut,
    Event,
    FailedJob,
    ManualEvent,
    MessageVersionOut,
    Overview,
    Sample,
    UserChange,
    Who,
)
from smartlink.portal.campaigns.channels import campaign_channel, viewers_channel
from smartlink.portal.campaigns.model import Campaign
from smartlink.portal.chat.model import ChatMessage
from smartlink.portal.chat.queries import versions
from smartlink.portal.presence.model import UserPresence
from smartlink.portal.presence.service import user_id_of
from smartlink.portal.shared.db import outbox_tables
from smartlink.portal.shared.errors import Forbidden, Invalid, NotFound, RealtimeUnavailable
from smartlink.portal.shared.paging import Page, ordered, within
from smartlink.portal.shared.realtime import RealtimeApi, RealtimeAway
from smartlink.portal.shared.unit_of_work import Announcer, UnitOfWork
from smartlink.portal.users.channel_revocations import ChannelRevocations
from smartlink.portal.users.model import User
from smartlink.portal.users.service import Principal, Users

__all__ = ["Admin", "admin_channels", "audited", "failed_events", "listed_users", "recent_events"]

MAX_CHANNELS = 500
MAX_PRESENCE_CHANNELS = 50
MAX_REVOKED_CAMPAIGNS = 50
"""With more campaigns, a former admin's connections are ended: one call instead of one for each campaign."""


def listed_users(page: Page, search: str | None) -> Select[User, UserPresence]:
    """Select a page of users with their presence, optionally with `search` in the name or e-mail address.

    Newest first, or oldest first after an id.
    """
    found = select(User, UserPresence).outerjoin(UserPresence, UserPresence.user_id == User.id)
    if search:
        found = found.where(
            or_(User.name.icontains(search, autoescape=True), User.email.contains(search.lower(), autoescape=True))
        )
    return found.where(*within(User.id, page)).order_by(ordered(User.id, page)).limit(page.limit)


def recent_events(page: Page, channel: str | None) -> Select[Any]:
    """Select a page of recorded events, ordered like users."""
    events = outbox_tables.recorded_events.c
    found = select(
        events.id,
        events.channel,
        events.name,
        events.payload,
        events.state,
        in_utc(events.created_at),
        in_utc(events.sent_at),
    )
    if channel is not None:
        found = found.where(events.channel == channel)
    return found.where(*within(events.id, page)).order_by(ordered(events.id, page)).limit(page.limit)


def failed_events(page: Page) -> Select[Any]:
    """Select a page of failed events, ordered like users."""
    events = outbox_tables.recorded_events.c
    found = select(
        events.id,
        events.channel,
        events.name,
        events.payload,
        events.attempts,
        events.error,
        in_utc(events.created_at),
    )
    found = found.where(events.state == literal_column(f"'{FAILED}'"), *within(events.id, page))
    return found.order_by(ordered(events.id, page)).limit(page.limit)


def audited(page: Page) -> Select[AuditEntry]:
    """Select a page of the audit log, ordered like users."""
    found = select(AuditEntry).where(*within(AuditEntry.id, page)).options(selectinload(AuditEntry.admin))
    return found.order_by(ordered(AuditEntry.id, page)).limit(page.limit)


async def admin_channels(session: AsyncSession, user_id: int) -> Sequence[Channel] | None:
    """Return the channels that a user could be on only as an admin; None if there are too many to name.

    Empty if the user is an admin, perhaps again.
    """
    if await session.scalar(select(User.is_admin).where(User.id == user_id)):
        return ()
    others = select(Campaign.id).where(Campaign.user_id != user_id).limit(MAX_REVOKED_CAMPAIGNS + 1)
    campaigns = (await session.scalars(others)).all()
    if len(campaigns) > MAX_REVOKED_CAMPAIGNS:
        return None
    of = [channel(campaign_id) for campaign_id in campaigns for channel in (campaign_channel, viewers_channel)]
    return [admin_channel(), *of]


class Admin:
    """The service for admins. Callers must have checked that the user is one."""

    def __init__(
        self,
        announcer: Announcer,
        realtime: RealtimeApi,
        users: Users,
        board: FigureBoard,
        console: Console,
        revocations: ChannelRevocations,
    ) -> None:
        self._announcer = announcer
        self._database = announcer.database
        self._realtime = realtime
        self._users = users
        self._revocations = revocations
        self._board = board
        self._console = console
        self._failed = FailedEvents(outbox_tables)

    # Queries

    async def overview(self) -> Overview:
        """Return the figures, now and over the last hour."""
        self._board.expect_viewer()
        samples = [Sample.model_validate(row) for row in await self._board.history()]
        return Overview(now=await self._board.collect(), history=samples)

    async def users(self, page: Page, search: str | None) -> list[AdminUser]:
        """Return a page of users, newest first."""
        async with self._database.reading() as session:
            rows = (await session.execute(listed_users(page, search))).all()
        return [_user(user, presence) for user, presence in rows]

    async def connections(self) -> ConnectionsOut:
        """Return the number of connections, and the users on presence channels. Raises RealtimeUnavailable."""
        try:
            count = (await self._realtime.get("/connections"))["connections"]
            channels = (await self._realtime.get("/channels", filter_by_prefix="presence-"))["channels"]
            present = {name: await self._realtime.present(name) for name in sorted(channels)[:MAX_PRESENCE_CHANNELS]}
        except (RealtimeAway, KeyError, TypeError) as error:
            raise RealtimeUnavailable from error
        where: dict[str, list[str]] = {}
        for name, ids in present.items():
            for user_id in ids:
                where.setdefault(user_id, []).append(name)
        names = await self._names(where)
        return ConnectionsOut(
            connections=count,
            users=[Who(id=user_id, name=names.get(user_id), channels=where[user_id]) for user_id in sorted(where)],
        )

    async def channels(self) -> list[ChannelOut]:
        """Return the occupied channels by name. Raises RealtimeUnavailable."""
        try:
            counted = await self._realtime.get("/channels", info="subscription_count")
            users = await self._realtime.get(
                "/channels", filter_by_prefix="presence-", info="user_count,subscription_count"
            )
            found = counted["channels"] | users["channels"]
            return [
                ChannelOut(
                    name=name,
                    subscription_count=found[name].get("subscription_count", 0),
                    user_count=found[name].get("user_count"),
                )
                for name in sorted(found)[:MAX_CHANNELS]
            ]
        except (RealtimeAway, KeyError, TypeError, AttributeError) as error:
            raise RealtimeUnavailable from error

    async def events(self, page: Page, channel: str | None) -> list[Event]:
        """Return a page of recorded events, newest first."""
        async with self._database.reading() as session:
            rows = (await session.execute(recent_events(page, channel))).all()
        return [
            Event(
                id=row.id,
                channel=row.channel,
                name=row.name,
                payload=_shown(json.loads(row.payload)),
                state=row.state,
                created_at=row.created_at,
                sent_at=row.sent_at,
            )
            for row in rows
        ]

    async def failed_jobs(self, page: Page) -> list[FailedJob]:
        """Return a page of failed events, newest first."""
        async with self._database.reading() as session:
            rows = (await session.execute(failed_events(page))).all()
        return [FailedJob.model_validate(row) for row in rows]

    async def audit(self, page: Page) -> list[AuditOut]:
        """Return a page of the audit log, newest first."""
        async with self._database.reading() as session:
            rows = (await session.scalars(audited(page))).all()
            return [AuditOut.model_validate(row) for row in rows]

    async def message_versions(self, message_id: int) -> list[MessageVersionOut]:
        """Return the texts that a message of general chat has had, oldest first. Raises NotFound."""
        async with self._database.reading() as session:
            message = await session.get(ChatMessage, message_id)
            if message is None or message.recipient_id is not None:
                raise NotFound
            earlier = (await session.scalars(versions(message_id))).all()
        now = MessageVersionOut(version=message.version, message=message.message, replaced_at=None)
        return [*map(MessageVersionOut.model_validate, earlier), now]

    # Changes

    async def retry(self, caller: Principal, event_id: int) -> None:
        """Retry a failed event. Raises NotFound."""
        async with self._announcer.work() as work:
            if not await self._failed.retry(work.session, event_id):
                raise NotFound
            self._note(work, caller, "retry", str(event_id), {})
        self._announcer.outbox.wake()

    async def retry_all(self, caller: Principal) -> int:
        """Retry all events that have failed by now, in batches that keep transactions short. Returns the number."""
        async with self._database.reading() as session:
            newest = await self._failed.list(session, limit=1)
        through, count, step = newest[0].id if newest else 0, 0, RETRIED_AT_ONCE
        while step == RETRIED_AT_ONCE:
            async with self._announcer.work() as work:
                step = await self._failed.retry_all(work.session, through=through)
                self._note(work, caller, "retry all", "failed jobs", {"count": step})
            count += step
            self._announcer.outbox.wake()
        return count

    async def forget(self, caller: Principal, event_id: int) -> None:
        """Delete a failed event. Raises NotFound."""
        async with self._announcer.work() as work:
            if not await self._failed.forget(work.session, event_id):
                raise NotFound
            self._note(work, caller, "forget", str(event_id), {})

    async def forget_all(self, caller: Principal) -> int:
        """Delete all failed events. Returns the number."""
        async with self._announcer.work() as work:
            count = await self._failed.forget_all(work.session)
            self._note(work, caller, "forget all", "failed jobs", {"count": count})
        return count

    async def disconnect(self, caller: Principal, user_id: int) -> None:
        """End a user's connections; they may reconnect. Raises NotFound, RealtimeUnavailable."""
        async with self._announcer.work() as work:
            if await work.session.get(User, user_id) is None:
                raise NotFound
            self._note(work, caller, "disconnect", f"user {user_id}", {})
            try:
                await self._realtime.terminate(user_id)
            except RealtimeAway as error:
                raise RealtimeUnavailable from error

    async def change_user(self, caller: Principal, user_id: int, change: UserChange) -> AdminUser:
        """Change whether a user is an admin or blocked.

        Raises NotFound; Invalid for the caller's own account; Forbidden if the caller is no longer an admin.
        """
        if user_id == caller.id:
            field = "is_blocked" if change.is_blocked is not None else "is_admin"
            raise Invalid({field: ["You can't change your own account here. Ask another admin."]})
        changed = change.model_dump(exclude_none=True)
        async with self._announcer.work() as work:
            # One at a time: of two admins who demote each other, one stays.
            admins = select(User.id).where(User.is_admin, User.blocked_at.is_(None)).order_by(User.id)
            if caller.id not in (await work.session.scalars(admins.with_for_update())).all():
                raise Forbidden
            user = await work.session.get(User, user_id)
            if user is None:
                raise NotFound
            if change.is_admin is not None:
                self._change_rights(work, user, is_admin=change.is_admin)
                user.is_admin = change.is_admin
                user.updated_at = dt.datetime.now(dt.UTC)
            if change.is_blocked is not None:
                await self._users.set_blocked(work.session, user_id, blocked=change.is_blocked)
            if changed:
                self._note(work, caller, "change user", f"user {user_id}", changed)
            await work.session.flush()
            presence = await work.session.scalar(select(UserPresence).where(UserPresence.user_id == user_id))
            answer = _user(user, presence)
        await self._users.ended(user_id)
        self._revocations.begin()
        return answer

    def _change_rights(self, work: UnitOfWork, user: User, *, is_admin: bool) -> None:
        if user.is_admin == is_admin:
            return
        work.announce(RightsChanged(user.id, is_admin=is_admin))
        if not is_admin:
            # Rules decide on subscribing only.
            self._revocations.former_admin(work.session, user.id, "You are no longer an admin")

    async def broadcast(self, caller: Principal, event: ManualEvent) -> None:
        """Announce an event as written. Raises Invalid for an invalid channel or payload."""
        async with self._announcer.work() as work:
            try:
                work.announce(WrittenByHand(channel_of(event.channel), event.event, event.data))
            except BroadcastError as error:
                raise Invalid({"data": [str(error)]}) from None
            self._note(work, caller, "broadcast", event.channel, {"event": event.event})

    def _note(self, work: UnitOfWork, caller: Principal, action: str, target: str, detail: dict[str, Any]) -> None:
        now = dt.datetime.now(dt.UTC)
        work.session.add(AuditEntry(admin_id=caller.id, action=action, target=target, detail=detail, created_at=now))
        self._console.note("audit", None, action, {"admin": caller.name, "target": target})

    async def _names(self, ids: Any) -> dict[str, str]:
        known = [user_id for user_id in map(user_id_of, ids) if user_id is not None]
        async with self._database.reading() as session:
            rows = await session.execute(select(User.id, User.name).where(User.id.in_(known)))
            return {str(user_id): name for user_id, name in rows}


def _shown(payload: Any) -> Any:
    """Return what admins may see of a payload: None if it contains a direct message."""
    if not isinstance(payload, dict):
        return payload
    message = payload.get("message")
    notification = payload.get("notification", payload)
    is_direct = isinstance(message, dict) and message.get("recipient_id") is not None
    quotes_direct = isinstance(notification, dict) and notification.get("type") == "private_message"
    return None if is_direct or quotes_direct else payload


def _user(user: User, presence: UserPresence | None) -> AdminUser:
    return AdminUser(
        id=user.id,
        name=user.name,
        email=user.email,
        is_admin=user.is_admin,
        blocked_at=user.blocked_at,
        is_online=presence is not None and presence.is_online,
        last_seen=None if presence is None else presence.last_seen,
        created_at=user.created_at,
    )
