"""Notifications: create, list, mark as read."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Select, func, select, update

from smartlink.portal.notifications.events import (
    EchoNotification,
    NotificationChanged,
    NotificationCreated,
    NotificationRead,
    NotificationsRead,
)
from smartlink.portal.notifications.model import Notification
from smartlink.portal.notifications.schemas import NotificationOut
from smartlink.portal.shared.errors import NotFound
from smartlink.portal.shared.paging import Page, ordered, within
from smartlink.portal.shared.unit_of_work import Announcer, UnitOfWork
from smartlink.portal.users.channels import user_channel
from smartlink.portal.users.schemas import Profile
from smartlink.portal.users.service import Principal

__all__ = ["NotificationPage", "Notifications", "change_about", "listed", "mark_about", "notify", "unread_count"]

ABOUT_AT_ONCE = 500


async def notify(
    work: UnitOfWork, user: Profile, kind: str, data: dict[str, Any], *, receipts: bool = False
) -> NotificationOut:
    """Create a notification for `user` and announce it, in the unit of work that causes it.

    With `receipts`, the realtime server reports when it was received.
    """
    row = Notification(user_id=user.id, type=kind, data=data, created_at=dt.datetime.now(dt.UTC))
    work.session.add(row)
    await work.session.flush()
    notification = NotificationOut.model_validate(row)
    work.announce(NotificationCreated(notification, user), receipts=receipts)
    work.announce(EchoNotification(notification, user.id))
    return notification


async def mark_about(work: UnitOfWork, user: Profile, kind: str, key: str, ids: Sequence[int]) -> None:
    """Mark notifications of `user` about some records as read. Announces them once, `ABOUT_AT_ONCE` in an event.

    Selects notifications of the type `kind` whose `data[key]` is one of `ids`.
    """
    about = Notification.data[key].as_numeric(19, 0)
    for first in range(0, len(ids), ABOUT_AT_ONCE):
        marked = await _mark(work, user, Notification.type == kind, about.in_(ids[first : first + ABOUT_AT_ONCE]))
        if len(marked) == 1:
            work.announce(NotificationRead(marked[0], user))
        elif marked:
            work.announce(NotificationsRead(marked, marked[-1], user))


async def change_about(
    work: UnitOfWork, user: Profile, kind: str, key: str, about: int, change: dict[str, Any]
) -> None:
    """Change the data of the notifications of `user` about a record, and announce each that is changed.

    Selects notifications of the type `kind` whose `data[key]` is `about`.
    """
    which = (Notification.user_id == user.id, Notification.type == kind)
    found = select(Notification).where(*which, Notification.data[key].as_numeric(19, 0) == about)
    for row in await work.session.scalars(found.order_by(Notification.id).with_for_update()):
        if (data := row.data | change) != row.data:
            row.data = data
            work.announce(NotificationChanged(NotificationOut.model_validate(row), user))


async def _mark(work: UnitOfWork, user: Profile, *which: ColumnElement[bool]) -> list[int]:
    """Mark unread notifications as read. Returns the ids of those that were marked, in ascending order."""
    unread = (Notification.user_id == user.id, Notification.read_at.is_(None), *which)
    # Lock in one order, so that concurrent calls do not deadlock.
    locked = select(Notification.id).where(*unread).order_by(Notification.id).with_for_update()
    marked = await work.session.scalars(
        update(Notification)
        .where(Notification.id.in_(locked), Notification.read_at.is_(None))
        .values(read_at=dt.datetime.now(dt.UTC))
        .returning(Notification.id)
        .execution_options(synchronize_session=False)
    )
    return sorted(marked)


def listed(user_id: int, page: Page, *, unread: bool) -> Select[Notification]:
    """Select a page of a user's notifications: newest first, or oldest first after an id."""
    found = select(Notification).where(Notification.user_id == user_id, *within(Notification.id, page))
    if unread:
        found = found.where(Notification.read_at.is_(None))
    return found.order_by(ordered(Notification.id, page)).limit(page.limit)


def unread_count(user_id: int) -> Select[int]:
    """Select the number of a user's unread notifications."""
    return select(func.count()).where(Notification.user_id == user_id, Notification.read_at.is_(None))


@dataclass(frozen=True, slots=True)
class NotificationPage:
    """A page of notifications, the total number of unread ones, and the last event that both include."""

    notifications: list[NotificationOut]
    unread: int
    event_id: int


class Notifications:
    """The caller's own notifications."""

    def __init__(self, announcer: Announcer) -> None:
        self._announcer = announcer

    async def page(self, caller: Principal, which: Page, *, unread: bool) -> NotificationPage:
        """Return a page of notifications, newest first."""
        async with self._announcer.database.reading() as session:
            event_id = await self._announcer.outbox.latest_id(session, str(user_channel(caller.id)))
            rows = (await session.scalars(listed(caller.id, which, unread=unread))).all()
            count = await session.scalar(unread_count(caller.id)) or 0
        return NotificationPage([NotificationOut.model_validate(row) for row in rows], count, event_id)

    async def read(self, caller: Principal, notification_id: int) -> NotificationOut:
        """Mark a notification as read; announced once. Raises NotFound if it is not the caller's."""
        async with self._announcer.work() as work:
            for marked in await _mark(work, _profile(caller), Notification.id == notification_id):
                work.announce(NotificationRead(marked, _profile(caller)))
            row = await work.session.get(Notification, notification_id)
            if row is None or row.user_id != caller.id:
                raise NotFound
            return NotificationOut.model_validate(row)

    async def read_all(self, caller: Principal) -> None:
        """Mark all notifications as read, and announce that in one event."""
        async with self._announcer.work() as work:
            marked = await _mark(work, _profile(caller))
            if marked:
                work.announce(NotificationsRead([], marked[-1], _profile(caller)))


def _profile(caller: Principal) -> Profile:
    return Profile(id=caller.id, name=caller.name)
