"""Request and response schemas of chat."""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from smartlink.portal.shared.paging import MAX_ID
from smartlink.portal.shared.text import MessageText
from smartlink.portal.users.schemas import Profile

__all__ = [
    "ChangedMessage",
    "Conversation",
    "DirectMessageOut",
    "FoundMessage",
    "MessageOut",
    "MissedEvent",
    "MissedEvents",
    "NewDirectMessage",
    "NewMessage",
    "ReadUpTo",
    "RoomUnread",
    "ToOneself",
    "Typing",
]

UserId = Annotated[int, Field(strict=True, ge=1, le=MAX_ID)]


class NewMessage(BaseModel):
    """A message to general chat."""

    message: MessageText


class ChangedMessage(BaseModel):
    """The new text of a message."""

    message: MessageText


class NewDirectMessage(BaseModel):
    """A message to one user."""

    recipient_id: UserId
    message: MessageText


class Typing(BaseModel):
    """Whether you are typing, in general chat or to one user."""

    typing: Annotated[bool, Field(strict=True)]
    recipient_id: UserId | None = None


class MessageOut(BaseModel):
    """A message and its author. `delivered_at` and `read_at` are of direct messages only.

    `version` rises when it is edited or deleted; the text of a deleted message is empty.
    """

    model_config = ConfigDict(from_attributes=True)

    id: int
    user_id: int
    recipient_id: int | None
    message: str
    version: int
    edited_at: dt.datetime | None
    deleted_at: dt.datetime | None
    is_read: bool
    read_at: dt.datetime | None
    delivered_at: dt.datetime | None
    created_at: dt.datetime
    updated_at: dt.datetime
    user: Profile


class DirectMessageOut(MessageOut):
    """A direct message and its recipient."""

    recipient: Profile


class FoundMessage(MessageOut):
    """A search result; `recipient` is null in general chat."""

    recipient: Profile | None


class Conversation(BaseModel):
    """A direct conversation: the other user, the last message, and the number of unread ones."""

    user: Profile
    last_message: DirectMessageOut
    unread_count: int


class RoomUnread(BaseModel):
    """What you have not read of a room: of general chat (`peer_id` null) or a direct conversation.

    `unread_count` is exact up to 100, which means 100 or more. `last_message_id` is the newest message that was
    considered: later ones are not counted.
    """

    peer_id: int | None
    unread_count: Annotated[int, Field(ge=0, le=100)]
    first_unread_id: int | None
    last_message_id: int


class ReadUpTo(BaseModel):
    """How far you have read a room: general chat (`peer_id` null) or a direct conversation."""

    peer_id: UserId | None = None
    last_read_id: UserId


class ToOneself(BaseModel):
    """The error for a message to yourself."""

    error: Literal["Cannot send message to yourself"] = "Cannot send message to yourself"


class MissedEvent(BaseModel):
    """An event of a channel; `event` is its name, `data` its payload."""

    id: int
    event: str
    channel: str
    data: dict[str, Any]
    created_at: dt.datetime


class MissedEvents(BaseModel):
    """Events of a channel. `complete`: no later event has been deleted."""

    events: list[MissedEvent]
    complete: bool
