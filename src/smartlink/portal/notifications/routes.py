"""The endpoints of notifications."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Query, Request, Response

from smartlink.portal.notifications.schemas import NotificationOut
from smartlink.portal.notifications.service import Notifications
from smartlink.portal.shared.answers import shows
from smartlink.portal.shared.paging import EVENT_ID, PathId, WhichPage
from smartlink.portal.shared.routing import feature_router
from smartlink.portal.shared.schemas import Status
from smartlink.portal.users.identity import able
from smartlink.portal.users.service import Principal

__all__ = ["router"]

UNREAD = "X-Unread-Count"

router = feature_router(prefix="/api/notifications", tags=["notifications"])


async def _service(request: Request) -> Notifications:
    service: Notifications = request.app.state.notifications
    return service


Service = Annotated[Notifications, Depends(_service)]
Reader = Annotated[Principal, able("notifications:read")]
Writer = Annotated[Principal, able("notifications:write", limit="change")]


@router.get("", responses=shows(UNREAD, EVENT_ID))
async def list_notifications(
    caller: Reader,
    which: WhichPage,
    service: Service,
    response: Response,
    unread: Annotated[bool, Query(description="Only unread notifications")] = False,
) -> list[NotificationOut]:
    """List your notifications, newest first. X-Unread-Count: the total number of unread ones."""
    found = await service.page(caller, which, unread=unread)
    response.headers[UNREAD] = str(found.unread)
    response.headers[EVENT_ID] = str(found.event_id)
    return found.notifications


@router.post("/read")
async def read_all(caller: Writer, service: Service) -> Status:
    """Mark all your notifications as read."""
    await service.read_all(caller)
    return Status()


@router.post("/{notification_id}/read")
async def read_one(notification_id: PathId, caller: Writer, service: Service) -> NotificationOut:
    """Mark a notification as read."""
    return await service.read(caller, notification_id)
