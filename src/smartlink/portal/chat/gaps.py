"""`GET /api/events`: the durable events of a channel that a client has missed."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from fastapi import Query, Request, Response
from pydantic import WithJsonSchema

from smartlink.broadcasting import ChannelAuthorizer
from smartlink.portal.chat.redaction import without_deleted_texts
from smartlink.portal.chat.schemas import MissedEvents
from smartlink.portal.shared.answers import raises
from smartlink.portal.shared.errors import Forbidden
from smartlink.portal.shared.paging import Cursor, Limit
from smartlink.portal.shared.routing import feature_router
from smartlink.portal.shared.unit_of_work import Announcer
from smartlink.portal.users.identity import AnyCaller
from smartlink.portal.users.service import Principal
from smartlink.protocol.names import ChannelKind, is_valid_channel, kind_of

__all__ = ["router"]

router = feature_router(prefix="/api", tags=["realtime"])


class _Event(msgspec.Struct):
    id: int
    event: str
    channel: str
    data: msgspec.Raw
    created_at: str


class _Events(msgspec.Struct):
    events: list[_Event]
    complete: bool


@router.get("/events", response_model=MissedEvents, responses=raises(Forbidden))
async def events_after(
    caller: AnyCaller,
    request: Request,
    channel: Annotated[str, Query(max_length=400)],
    after: Annotated[Cursor, Query()] = 0,
    limit: Annotated[Limit, Query(le=200), WithJsonSchema({"type": "integer", "minimum": 1, "maximum": 200})] = 200,
) -> Response:
    """List the events of a channel after an event, oldest first.

    The channel must be one you may subscribe to; a token needs the channel's ability, `chat:read` on public ones.

    The text of messages that have been deleted since is empty.

    Without `after`, lists all stored events. `complete` is false if events after `after` have been deleted or could
    not be sent: reload the state then. If the list has `limit` events, ask again after the last one.
    """
    authorizer: ChannelAuthorizer[Principal] = request.app.state.authorizer
    announcer: Announcer = request.app.state.announcer
    if is_valid_channel(channel) and kind_of(channel) is ChannelKind.PUBLIC:
        caller.check("chat:read")
    elif not (await authorizer.decide(caller, channel)).allowed:
        raise Forbidden
    async with announcer.database.reading() as session:
        found, complete = await announcer.outbox.events_after(session, channel, after, limit)
        payloads = await without_deleted_texts(session, [event.payload for event in found])
    listed: list[Any] = [
        _Event(
            event.id,
            event.name,
            event.channel,
            msgspec.Raw(payload.encode()),
            event.created_at.isoformat().replace("+00:00", "Z"),
        )
        for event, payload in zip(found, payloads, strict=True)
    ]
    return Response(msgspec.json.encode(_Events(listed, complete)), media_type="application/json")
