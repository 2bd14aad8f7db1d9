"""Notify somebody, within the work that gives the reason."""

from __future__ import annotations

import datetime as dt
from typing import Any

from smartlink.portal.notifications.events import NotificationCreated
from smartlink.portal.notifications.model import Notification
from smartlink.portal.notifications.schemas import NotificationOut
from smartlink.portal.shared.work import Work
from smartlink.portal.users.schemas import Profile

__all__ = ["notify"]


async def notify(work: Work, user: Profile, kind: str, data: dict[str, Any]) -> NotificationOut:
    """Add a notification for `user` and announce it."""
    row = Notification(user_id=user.id, type=kind, data=data, created_at=dt.datetime.now(dt.UTC))
    work.session.add(row)
    await work.session.flush()
    notification = NotificationOut.model_validate(row)
    work.announce(NotificationCreated(notification, user))
    return notification
