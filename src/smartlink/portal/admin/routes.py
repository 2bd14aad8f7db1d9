"""The endpoints for admins. Other users get 403."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Query, Request, Response, Security

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
    UserChange,
)
from smartlink.portal.admin.service import Admin
from smartlink.portal.shared.answers import raises
from smartlink.portal.shared.errors import Forbidden
from smartlink.portal.shared.paging import PathId, WhichPage
from smartlink.portal.shared.routing import feature_router
from smartlink.portal.shared.schemas import Status
from smartlink.portal.shared.text import PlainText
from smartlink.portal.users.identity import AnyCaller, AnyChange
from smartlink.portal.users.service import Principal

__all__ = ["router"]

router = feature_router(prefix="/api/admin", tags=["admin"], responses=raises(Forbidden))


async def _admin(request: Request) -> Admin:
    admin: Admin = request.app.state.admin
    return admin


async def _admins_only(caller: AnyCaller) -> Principal:
    if not caller.is_admin:
        raise Forbidden
    return caller


async def _admins_changing(caller: AnyChange) -> Principal:
    return await _admins_only(caller)


Reader = Annotated[Principal, Security(_admins_only, scopes=["admin:read"])]
Writer = Annotated[Principal, Security(_admins_changing, scopes=["admin:write"])]
Service = Annotated[Admin, Depends(_admin)]


@router.get("/overview")
async def overview(_caller: Reader, service: Service) -> Overview:
    """Show the system's figures, now and over the last hour."""
    return await service.overview()


@router.get("/users")
async def list_users(
    _caller: Reader,
    which: WhichPage,
    service: Service,
    q: Annotated[PlainText | None, Query(max_length=100, description="Part of a name or e-mail address")] = None,
) -> list[AdminUser]:
    """List users, newest first."""
    return await service.users(which, q)


@router.patch("/users/{user_id}")
async def change_user(user_id: PathId, body: UserChange, caller: Writer, service: Service) -> AdminUser:
    """Change whether a user is an admin or blocked. Blocking ends their sessions, tokens and connections."""
    return await service.change_user(caller, user_id, body)


@router.post("/users/{user_id}/disconnect")
async def disconnect_user(user_id: PathId, caller: Writer, service: Service) -> Status:
    """End a user's connections."""
    await service.disconnect(caller, user_id)
    return Status()


@router.get("/connections")
async def connections(_caller: Reader, service: Service) -> ConnectionsOut:
    """Show the number of connections, and which users are on which presence channels."""
    return await service.connections()


@router.get("/channels")
async def channels(_caller: Reader, service: Service) -> list[ChannelOut]:
    """List the occupied channels."""
    return await service.channels()


@router.get("/events")
async def events(
    _caller: Reader,
    which: WhichPage,
    service: Service,
    channel: Annotated[PlainText | None, Query(max_length=200, description="Only events on this channel")] = None,
) -> list[Event]:
    """List recorded events, newest first."""
    return await service.events(which, channel)


@router.get("/failed-jobs")
async def failed_jobs(_caller: Reader, which: WhichPage, service: Service) -> list[FailedJob]:
    """List failed events, newest first."""
    return await service.failed_jobs(which)


@router.post("/failed-jobs/retry")
async def retry_all(caller: Writer, service: Service) -> Status:
    """Retry all failed events."""
    await service.retry_all(caller)
    return Status()


@router.delete("/failed-jobs", status_code=204)
async def forget_all(caller: Writer, service: Service) -> Response:
    """Delete all failed events."""
    await service.forget_all(caller)
    return Response(status_code=204)


@router.post("/failed-jobs/{event_id}/retry")
async def retry(event_id: PathId, caller: Writer, service: Service) -> Status:
    """Retry a failed event."""
    await service.retry(caller, event_id)
    return Status()


@router.delete("/failed-jobs/{event_id}", status_code=204)
async def forget(event_id: PathId, caller: Writer, service: Service) -> Response:
    """Delete a failed event."""
    await service.forget(caller, event_id)
    return Response(status_code=204)


@router.post("/broadcast")
async def broadcast(body: ManualEvent, caller: Writer, service: Service) -> Status:
    """Send an event written by hand."""
    await service.broadcast(caller, body)
    return Status()


@router.get("/audit")
async def audit(_caller: Reader, which: WhichPage, service: Service) -> list[AuditOut]:
    """List the actions of admins, newest first."""
    return await service.audit(which)


@router.get("/messages/{message_id}/versions")
async def message_versions(message_id: PathId, _caller: Reader, service: Service) -> list[MessageVersionOut]:
    """List the texts that a message of general chat has had, oldest first. 404 for direct messages."""
    return await service.message_versions(message_id)
