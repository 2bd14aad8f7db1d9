"""The endpoints of chat."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Query, Request, Response
from fastapi.responses import JSONResponse

from smartlink.portal.chat.changes import Changes
from smartlink.portal.chat.schemas import (
    ChangedMessage,
    Conversation,
    DirectMessageOut,
    FoundMessage,
    MessageOut,
    NewDirectMessage,
    NewMessage,
    ReadUpTo,
    RoomUnread,
    ToOneself,
    Typing,
)
from smartlink.portal.chat.service import Chat
from smartlink.portal.presence.service import Presence
from smartlink.portal.shared.answers import raises, shows
from smartlink.portal.shared.errors import Conflict, NotFound, TooMany
from smartlink.portal.shared.idempotency import KeyHeader, StoredResponse
from smartlink.portal.shared.paging import EVENT_ID, PathId, WhichPage
from smartlink.portal.shared.routing import feature_router
from smartlink.portal.shared.schemas import Status
from smartlink.portal.shared.text import PlainText
from smartlink.portal.users.identity import able
from smartlink.portal.users.schemas import Profile
from smartlink.portal.users.service import Principal

__all__ = ["router"]

router = feature_router(prefix="/api/chat", tags=["chat"])


async def _chat(request: Request) -> Chat:
    chat: Chat = request.app.state.chat
    return chat


async def _changes(request: Request) -> Changes:
    changes: Changes = request.app.state.changes
    return changes


async def _presence(request: Request) -> Presence:
    presence: Presence = request.app.state.presence
    return presence


ChatService = Annotated[Chat, Depends(_chat)]
ChangesService = Annotated[Changes, Depends(_changes)]
Reader = Annotated[Principal, able("chat:read")]
Writer = Annotated[Principal, able("chat:write")]
Marker = Annotated[Principal, able("chat:write", limit="change")]
PresenceService = Annotated[Presence, Depends(_presence)]


def _respond(answer: StoredResponse) -> Response:
    return Response(answer.body, answer.status, media_type="application/json")


@router.get("/messages", responses=shows(EVENT_ID))
async def list_messages(_caller: Reader, which: WhichPage, chat: ChatService, response: Response) -> list[MessageOut]:
    """List the latest messages of general chat, before or after an id, in ascending order.

    X-Event-Id: the last event they include.
    """
    messages, event_id = await chat.messages(which)
    response.headers[EVENT_ID] = str(event_id)
    return messages


@router.post("/messages", status_code=201, response_model=MessageOut, responses=raises(TooMany))
async def send_message(
    body: NewMessage, caller: Writer, chat: ChatService, idempotency_key: KeyHeader = None
) -> Response:
    """Send a message to general chat."""
    return _respond(await chat.send(caller, body.message, idempotency_key))


@router.post("/typing", responses=raises(TooMany))
async def typing(body: Typing, caller: Writer, chat: ChatService) -> Status:
    """Show others that you are typing, or have stopped."""
    await chat.typing(caller, body.typing, body.recipient_id)
    return Status()


@router.get("/search", responses=raises(TooMany))
async def search_messages(
    caller: Reader,
    which: WhichPage,
    chat: ChatService,
    q: Annotated[PlainText, Query(min_length=1, max_length=200, description="Words or prefixes of words")],
) -> list[FoundMessage]:
    """Search the messages you may see, newest first."""
    return await chat.search(caller, q, which)


@router.get("/users/online")
async def online_users(_caller: Reader, presence: PresenceService) -> list[Profile]:
    """List the users who are online and were seen in the last five minutes."""
    return [Profile.model_validate(user) for user in await presence.online()]


@router.get("/conversations", responses=shows(EVENT_ID))
async def conversations(caller: Reader, chat: ChatService, response: Response) -> list[Conversation]:
    """List your direct conversations, newest first."""
    found, event_id = await chat.conversations(caller)
    response.headers[EVENT_ID] = str(event_id)
    return found


@router.post(
    "/messages/private",
    status_code=201,
    response_model=DirectMessageOut,
    responses=raises(TooMany) | {400: {"model": ToOneself, "description": "A message to yourself."}},
)
async def send_private_message(
    body: NewDirectMessage, caller: Writer, chat: ChatService, idempotency_key: KeyHeader = None
) -> Response:
    """Send a direct message."""
    if body.recipient_id == caller.id:
        return JSONResponse(ToOneself().model_dump(), 400)
    return _respond(await chat.send_private(caller, body.recipient_id, body.message, idempotency_key))


@router.get("/messages/private/{user_id}", responses=shows(EVENT_ID))
async def private_history(
    user_id: PathId, caller: Reader, which: WhichPage, chat: ChatService, response: Response
) -> list[DirectMessageOut]:
    """List the messages of a direct conversation, paged like general chat."""
    messages, event_id = await chat.history(caller, user_id, which)
    response.headers[EVENT_ID] = str(event_id)
    return messages


@router.post("/messages/private/{user_id}/read")
async def read_all(user_id: PathId, caller: Marker, chat: ChatService) -> Status:
    """Mark all messages from a user to you as read."""
    await chat.read_all(caller, user_id)
    return Status()


@router.get("/unread", responses=shows(EVENT_ID))
async def list_unread(caller: Reader, chat: ChatService, response: Response) -> list[RoomUnread]:
    """List what you have not read: general chat, and the direct conversations with unread messages.

    X-Event-Id: the last event on your own channel that it includes.
    """
    found, event_id = await chat.unread(caller)
    response.headers[EVENT_ID] = str(event_id)
    return found


@router.post("/read", responses=raises(NotFound))
async def read_up_to(body: ReadUpTo, caller: Marker, chat: ChatService) -> RoomUnread:
    """Mark a room as read up to a message, and get what is unread then."""
    return await chat.read_up_to(caller, body.peer_id, body.last_read_id)


@router.post("/messages/{message_id}/unread")
async def mark_unread(message_id: PathId, caller: Marker, chat: ChatService) -> RoomUnread:
    """Mark a message and what follows it in its room as unread, for you only: others see that you have read it."""
    return await chat.mark_unread(caller, message_id)


@router.post("/messages/{message_id}/read")
async def read_message(message_id: PathId, caller: Marker, chat: ChatService) -> DirectMessageOut:
    """Mark a message to you as read."""
    return await chat.read(caller, message_id)


@router.patch("/messages/{message_id}", response_model=FoundMessage, responses=raises(Conflict, TooMany))
async def edit_message(
    message_id: PathId,
    body: ChangedMessage,
    caller: Writer,
    changes: ChangesService,
    idempotency_key: KeyHeader = None,
) -> Response:
    """Edit a message of yours. 403 for others' messages; 409 if it was deleted.

    Edits of a message have one order, by `version`: the last one wins. Admins can see earlier texts in general chat.
    """
    return _respond(await changes.edit(caller, message_id, body.message, idempotency_key))


@router.delete("/messages/{message_id}")
async def delete_message(message_id: PathId, caller: Marker, changes: ChangesService) -> FoundMessage:
    """Delete a message of yours. 403 for others' messages. What remains has `deleted_at`, and an empty text."""
    return await changes.delete(caller, message_id)
