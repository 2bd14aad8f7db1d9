"""Editing and deleting one's own messages.

Changes of a message wait for each other at its row, so that all of them have one order: its `version`.
"""

from __future__ import annotations

import datetime as dt

from smartlink.portal.chat import queries
from smartlink.portal.chat.events import MessageDeleted, MessageUpdated
from smartlink.portal.chat.model import ChatMessage, MessageVersion
from smartlink.portal.chat.redaction import without_deleted_text
from smartlink.portal.chat.schemas import FoundMessage, MessageOut
from smartlink.portal.notifications.service import change_about
from smartlink.portal.shared.errors import Conflict, Forbidden, Invalid, NotFound
from smartlink.portal.shared.idempotency import StoredResponse, once
from smartlink.portal.shared.limits import RateLimits
from smartlink.portal.shared.unit_of_work import Announcer, UnitOfWork
from smartlink.portal.users.schemas import Profile
from smartlink.portal.users.service import Principal

__all__ = ["EXCERPT_LENGTH", "MAX_EDITS", "Changes"]

EXCERPT_LENGTH = 100
"""Of a direct message, in its notification."""
MAX_EDITS = 100


class Changes:
    """Edits and deletes messages. Raises NotFound for those the caller may not see, Forbidden for others' messages."""

    def __init__(self, announcer: Announcer, limits: RateLimits) -> None:
        self._announcer = announcer
        self._limits = limits

    async def edit(self, caller: Principal, message_id: int, text: str, key: str | None) -> StoredResponse:
        """Change the text of a message; the same text changes nothing. Repeats are answered as the first time.

        Raises Conflict if it was deleted, Invalid after too many edits, TooMany.
        """
        if key is None:
            await self._limits.take("message", caller.id)
        content = f"{message_id}\n{text}"
        async with (
            self._announcer.work() as work,
            once(work.session, caller.id, "chat.messages.edit", key, content) as done,
        ):
            if done.response is not None:
                return await without_deleted_text(work.session, done.response)
            if key is not None:
                await self._limits.take("message", caller.id)
            message = await _own(work, caller, message_id)
            if message.deleted_at is not None:
                raise Conflict(message.version)
            if text != message.message:
                await _edit(work, message, text)
            done.response = answer = StoredResponse(200, _out(message).model_dump_json())
        return answer

    async def delete(self, caller: Principal, message_id: int) -> FoundMessage:
        """Delete the text of a message; what remains says that it was deleted. Deleting it again changes nothing."""
        async with self._announcer.work() as work:
            message = await _own(work, caller, message_id)
            if message.deleted_at is None:
                message.deleted_at = await _replace(work, message, "")
                work.announce(MessageDeleted(MessageOut.model_validate(message)))
            return _out(message)


async def _own(work: UnitOfWork, caller: Principal, message_id: int) -> ChatMessage:
    """Lock a message of the caller. Raises NotFound, Forbidden."""
    message = await work.session.scalar(queries.seen_by(caller.id, message_id).with_for_update(of=ChatMessage))
    if message is None:
        raise NotFound
    if message.user_id != caller.id:
        raise Forbidden
    return message


async def _edit(work: UnitOfWork, message: ChatMessage, text: str) -> None:
    if message.version > MAX_EDITS:
        raise Invalid({"message": [f"A message can be edited {MAX_EDITS} times."]})
    message.edited_at = await _replace(work, message, text)
    work.announce(MessageUpdated(MessageOut.model_validate(message)))


async def _replace(work: UnitOfWork, message: ChatMessage, text: str) -> dt.datetime:
    """Give a message another text and keep the old one. Returns the time."""
    now = dt.datetime.now(dt.UTC)
    work.session.add(
        MessageVersion(message_id=message.id, version=message.version, message=message.message, replaced_at=now)
    )
    message.message = text
    message.version += 1
    message.updated_at = now
    if message.recipient is not None:
        recipient = Profile.model_validate(message.recipient)
        excerpt = {"excerpt": text[:EXCERPT_LENGTH]}
        await change_about(work, recipient, "private_message", "message_id", message.id, excerpt)
    return now


def _out(message: ChatMessage) -> FoundMessage:
    return FoundMessage.model_validate(message)
