"""Takes the text of messages that have been deleted out of what was recorded before: events, stored responses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from smartlink.portal.chat.model import ChatMessage
from smartlink.portal.shared.idempotency import StoredResponse

__all__ = ["without_deleted_text", "without_deleted_texts"]

Text = tuple[int, dict[str, Any], str]
"""The id of a message, and where its text is: in which object, under which key."""


async def without_deleted_texts(session: AsyncSession, payloads: Sequence[str]) -> list[str]:
    """Return the payloads of recorded events, without the text of messages that have been deleted since."""
    read = [msgspec.json.decode(payload) for payload in payloads]
    texts = [list(_texts(payload)) for payload in read]
    deleted = await _deleted(session, {message_id for found in texts for message_id, _, _ in found})
    return [
        _written(payload, found, deleted) if any(each in deleted for each, _, _ in found) else as_recorded
        for payload, found, as_recorded in zip(read, texts, payloads, strict=True)
    ]


async def without_deleted_text(session: AsyncSession, stored: StoredResponse) -> StoredResponse:
    """Return a stored response that is a message, without its text if it has been deleted since."""
    [body] = await without_deleted_texts(session, [f'{{"message":{stored.body}}}'])
    return StoredResponse(stored.status, body.removeprefix('{"message":').removesuffix("}"))


def _texts(payload: Any) -> Iterator[Text]:
    """Yield the texts in a payload. Events written by hand may have any shape."""
    if not isinstance(payload, dict):
        return
    message, notification = payload.get("message"), payload.get("notification")
    if isinstance(message, dict) and isinstance(message.get("id"), int):
        yield message["id"], message, "message"
    about = notification.get("data") if isinstance(notification, dict) else payload
    if isinstance(about, dict) and isinstance(about.get("message_id"), int) and "excerpt" in about:
        yield about["message_id"], about, "excerpt"


async def _deleted(session: AsyncSession, ids: set[int]) -> set[int]:
    if not ids:
        return set()
    found = select(ChatMessage.id).where(ChatMessage.id.in_(ids), ChatMessage.deleted_at.is_not(None))
    return set(await session.scalars(found))


def _written(payload: Any, texts: Sequence[Text], deleted: set[int]) -> str:
    for message_id, where, key in texts:
        if message_id in deleted:
            where[key] = ""
    return msgspec.json.encode(payload).decode()
