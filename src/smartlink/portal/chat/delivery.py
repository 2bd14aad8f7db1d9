"""Marks direct messages as delivered, as the realtime server reports by webhook.

A message reaches its recipient by either of two events: on the conversation's channel, or as a notification on the
user's own, which every page is subscribed to. The first one that is confirmed counts.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from sqlalchemy import select, update

from smartlink.broadcasting.webhooks import EventDelivered
from smartlink.portal.chat import queries
from smartlink.portal.chat.events import MessageDelivered
from smartlink.portal.chat.model import ChatMessage
from smartlink.portal.chat.schemas import DirectMessageOut
from smartlink.portal.presence.service import user_id_of
from smartlink.portal.shared.db import outbox_tables
from smartlink.portal.shared.unit_of_work import Announcer, UnitOfWork

__all__ = ["Deliveries"]


class Deliveries:
    """Call `apply` with a webhook's events."""

    def __init__(self, announcer: Announcer) -> None:
        self._announcer = announcer

    async def apply(self, events: Iterable[object]) -> None:
        """Mark the direct messages that `events` report, in one transaction; announce each to its sender, once."""
        recipients: dict[int, set[int]] = {}
        for event in events:
            if not isinstance(event, EventDelivered) or event.event_id is None:
                continue
            if (user_id := user_id_of(event.user_id)) is not None:
                recipients.setdefault(event.event_id, set()).add(user_id)
        if not recipients:
            return
        async with self._announcer.work() as work:
            messages = await _messages(work, recipients)
            for user_id in sorted(messages):
                await _mark(work, user_id, messages[user_id])


async def _messages(work: UnitOfWork, recipients: Mapping[int, Iterable[int]]) -> dict[int, set[int]]:
    """Return the ids of the messages in recorded events, by user who received them."""
    events = outbox_tables.recorded_events.c
    found = await work.session.execute(select(events.id, events.payload).where(events.id.in_(recipients)))
    messages: dict[int, set[int]] = {}
    for event_id, payload in found:
        if (message_id := _message_id(msgspec.json.decode(payload))) is not None:
            for user_id in recipients[event_id]:
                messages.setdefault(user_id, set()).add(message_id)
    return messages


def _message_id(payload: Any) -> int | None:
    """Return the id of the message that an event is about; None for other events."""
    about = payload.get("message") or payload.get("notification", {}).get("data", {})
    found = about.get("id", about.get("message_id")) if isinstance(about, dict) else None
    return found if isinstance(found, int) else None


async def _mark(work: UnitOfWork, recipient_id: int, message_ids: Iterable[int]) -> None:
    """Mark messages to a user, in one order so that concurrent calls do not deadlock."""
    waiting = (
        ChatMessage.id.in_(sorted(message_ids)),
        ChatMessage.recipient_id == recipient_id,
        ChatMessage.delivered_at.is_(None),
    )
    locked = select(ChatMessage.id).where(*waiting).order_by(ChatMessage.id).with_for_update()
    marked = await work.session.scalars(
        update(ChatMessage)
        .where(ChatMessage.id.in_(locked), ChatMessage.delivered_at.is_(None))
        .values(delivered_at=dt.datetime.now(dt.UTC))
        .returning(ChatMessage.id)
        .execution_options(synchronize_session=False)
    )
    for row in await work.session.scalars(queries.these(list(marked))):
        message = DirectMessageOut.model_validate(row)
        work.announce(MessageDelivered(message, message.recipient))
