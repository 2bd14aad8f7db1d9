"""Chat: sending, reading, searching, receipts and typing."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import ColumnElement, func, insert, literal, select, update

from smartlink.portal.chat import queries
from smartlink.portal.chat.changes import EXCERPT_LENGTH
from smartlink.portal.chat.channels import conversation_channel, general_channel
from smartlink.portal.chat.events import MessageRead, MessageSent, PrivateMessageSent, UserTyping
from smartlink.portal.chat.model import GENERAL, ChatMessage, ReadPosition
from smartlink.portal.chat.redaction import without_deleted_text
from smartlink.portal.chat.schemas import Conversation, DirectMessageOut, FoundMessage, MessageOut, RoomUnread
from smartlink.portal.chat.typists import Typists
from smartlink.portal.chat.unread import (
    announcing_unread,
    begin_general,
    forget_position,
    keep_position,
    read_general,
    unread_counts,
    unread_in,
    unread_rooms,
)
from smartlink.portal.notifications.service import mark_about, notify
from smartlink.portal.presence.service import Presence
from smartlink.portal.shared.db import UtcDateTime
from smartlink.portal.shared.errors import Invalid, NotFound
from smartlink.portal.shared.idempotency import Once, StoredResponse, once
from smartlink.portal.shared.limits import RateLimits
from smartlink.portal.shared.paging import MAX_ID, Page
from smartlink.portal.shared.unit_of_work import Announcer, UnitOfWork
from smartlink.portal.users.channels import user_channel
from smartlink.portal.users.model import User
from smartlink.portal.users.schemas import Profile
from smartlink.portal.users.service import Principal

__all__ = ["Chat"]

MAX_CONVERSATIONS = 200
READ_AT_ONCE = 500
MAX_WORDS = 10
_TABLE: Any = ChatMessage.__table__
_ADD = insert(_TABLE).returning(_TABLE.c.id)


class Chat:
    """General and direct messages, receipts, typing."""

    def __init__(self, announcer: Announcer, presence: Presence, typists: Typists, limits: RateLimits) -> None:
        self._announcer = announcer
        self._database = announcer.database
        self._presence = presence
        self._typists = typists
        self._limits = limits

    async def messages(self, page: Page) -> tuple[list[MessageOut], int]:
        """Return a page of general chat in ascending order, and the id of the last event it includes."""
        async with self._database.reading() as session:
            # The event is read first: messages read after it include what it announced.
            event_id = await self._announcer.outbox.latest_id(session, str(general_channel()))
            rows = (await session.scalars(queries.general(page))).all()
            return [MessageOut.model_validate(row) for row in _ascending(rows, page)], event_id

    async def history(self, caller: Principal, peer_id: int, page: Page) -> tuple[list[DirectMessageOut], int]:
        """Return a page of a direct conversation, like `messages`. Raises NotFound for unknown users and the caller."""
        async with self._database.reading() as session:
            if peer_id == caller.id or await session.get(User, peer_id) is None:
                raise NotFound
            channel = str(conversation_channel(caller.id, peer_id))
            event_id = await self._announcer.outbox.latest_id(session, channel)
            rows = (await session.scalars(queries.between(caller.id, peer_id, page))).all()
            return [DirectMessageOut.model_validate(row) for row in _ascending(rows, page)], event_id

    async def search(self, caller: Principal, asked: str, page: Page) -> list[FoundMessage]:
        """Return the messages the caller may see that match a query, newest first. Raises TooMany."""
        await self._limits.take("search", caller.id)
        words = " ".join(re.findall(r"\w+", asked.replace("_", " "))[:MAX_WORDS])
        if not words:
            return []
        async with self._database.reading() as session:
            found = queries.search(caller.id, words, page, is_sqlite=self._database.is_sqlite)
            return [FoundMessage.model_validate(row) for row in (await session.scalars(found)).all()]

    async def conversations(self, caller: Principal) -> tuple[list[Conversation], int]:
        """Return the caller's conversations, newest first, and the id of the last event they include."""
        async with self._database.reading() as session:
            event_id = await self._announcer.outbox.latest_id(session, str(user_channel(caller.id)))
            rows = (await session.scalars(queries.last_of_each(caller.id, MAX_CONVERSATIONS))).all()
            counts = await unread_counts(session, caller.id)
            messages = [DirectMessageOut.model_validate(row) for row in rows]
        return [_conversation(caller, message, counts) for message in messages], event_id

    async def send(self, caller: Principal, text: str, key: str | None) -> StoredResponse:
        """Send a message to general chat. Raises TooMany."""
        async with self._sending(caller, "chat.messages", key, text) as (work, done):
            if done.response is not None:
                return await without_deleted_text(work.session, done.response)
            message = MessageOut(**await _add(work, caller, text, None), user=_profile(caller))
            await self._end_typing(work, caller, None)
            work.announce(MessageSent(message), to_others=True)
            await self._presence.touch(work, caller.id)
            done.response = answer = StoredResponse(201, message.model_dump_json())
        return answer

    async def send_private(self, caller: Principal, recipient_id: int, text: str, key: str | None) -> StoredResponse:
        """Send a direct message. Raises Invalid for an unknown recipient, TooMany."""
        content = f"{recipient_id}\n{text}"
        async with self._sending(caller, "chat.messages.private", key, content) as (work, done):
            if done.response is not None:
                return await without_deleted_text(work.session, done.response)
            found = await work.session.get(User, recipient_id)
            if found is None:
                raise _unknown_recipient()
            recipient = Profile.model_validate(found)
            added = await _add(work, caller, text, recipient_id)
            message = DirectMessageOut(**added, user=_profile(caller), recipient=recipient)
            await self._end_typing(work, caller, recipient_id)
            work.announce(PrivateMessageSent(message), to_others=True, receipts=True)
            sender = {"id": caller.id, "name": caller.name}
            data = {"message_id": message.id, "sender": sender, "excerpt": text[:EXCERPT_LENGTH]}
            await notify(work, recipient, "private_message", data, receipts=True)
            await self._presence.touch(work, caller.id)
            done.response = answer = StoredResponse(201, message.model_dump_json())
        return answer

    @asynccontextmanager
    async def _sending(
        self, caller: Principal, endpoint: str, key: str | None, content: str
    ) -> AsyncIterator[tuple[UnitOfWork, Once]]:
        """Open a unit of work for a message, sent once per key. Repeats do not count against the rate limit."""
        if key is None:
            await self._limits.take("message", caller.id)
        async with self._announcer.work() as work, once(work.session, caller.id, endpoint, key, content) as done:
            if key is not None and done.response is None:
                await self._limits.take("message", caller.id)
            yield work, done

    async def read(self, caller: Principal, message_id: int) -> DirectMessageOut:
        """Mark a message and its notification as read. Announces it to the sender, once.

        Raises NotFound unless the message is to the caller.
        """
        async with self._announcer.work() as work:
            row = await work.session.scalar(queries.direct(message_id, caller.id))
            if row is None:
                raise NotFound
            async with announcing_unread(work, _profile(caller), row.user_id):
                await _mark_read(work, caller, ChatMessage.id == message_id)
                await forget_position(work.session, caller.id, row.user_id, message_id)
            await work.session.refresh(row)
            return DirectMessageOut.model_validate(row)

    async def read_all(self, caller: Principal, peer_id: int) -> None:
        """Mark all messages from a user to the caller, and their notifications, as read. Announces each once."""
        await self.read_up_to(caller, peer_id, MAX_ID)

    async def read_up_to(self, caller: Principal, peer_id: int | None, last_read_id: int) -> RoomUnread:
        """Mark a room as read up to a message: general chat (`peer_id` None), or like `read_all` a conversation.

        Returns what is unread then. Raises NotFound for unknown users and the caller.
        """
        async with self._announcer.work() as work:
            if peer_id is not None and (peer_id == caller.id or await work.session.get(User, peer_id) is None):
                raise NotFound
            async with announcing_unread(work, _profile(caller), peer_id):
                if peer_id is None:
                    await read_general(work.session, caller.id, last_read_id)
                else:
                    await _mark_read(work, caller, ChatMessage.user_id == peer_id, ChatMessage.id <= last_read_id)
                    await forget_position(work.session, caller.id, peer_id, last_read_id)
            return await unread_in(work.session, caller.id, peer_id)

    async def unread(self, caller: Principal) -> tuple[list[RoomUnread], int]:
        """Return general chat and the conversations with unread messages, and the last event they include.

        In general chat everybody begins at the end, when they ask for the first time.
        """
        async with self._database.reading() as session:
            has_begun = await session.get(ReadPosition, (caller.id, GENERAL)) is not None
        if not has_begun:
            async with self._database.writing() as session:
                await begin_general(session, caller.id)
        async with self._database.reading() as session:
            event_id = await self._announcer.outbox.latest_id(session, str(user_channel(caller.id)))
            return await unread_rooms(session, caller.id), event_id

    async def mark_unread(self, caller: Principal, message_id: int) -> RoomUnread:
        """Mark a message and what follows it in its room as unread, for the caller only; receipts stay.

        Raises NotFound unless the message is in general chat or to the caller.
        """
        async with self._announcer.work() as work:
            message = await work.session.get(ChatMessage, message_id)
            if message is None or message.recipient_id not in (None, caller.id):
                raise NotFound
            peer_id = None if message.recipient_id is None else message.user_id
            async with announcing_unread(work, _profile(caller), peer_id):
                await keep_position(work.session, caller.id, peer_id, message_id - 1, only_forward=False)
            return await unread_in(work.session, caller.id, peer_id)

    async def typing(self, caller: Principal, is_typing: bool, recipient_id: int | None) -> None:
        """Announce that the caller started or stopped typing. Raises Invalid, TooMany."""
        await self._limits.take("typing", caller.id)
        if recipient_id is not None:
            if recipient_id == caller.id:
                raise Invalid({"recipient_id": ["You can't message yourself."]})
            async with self._database.reading() as session:
                if await session.scalar(select(User.id).where(User.id == recipient_id)) is None:
                    raise _unknown_recipient()
        if is_typing:
            await self._typists.began(caller.id, recipient_id)
        else:
            await self._typists.ended(caller.id, recipient_id)
        self._announcer.say(UserTyping(_profile(caller), is_typing, recipient_id), to_others=True)

    async def _end_typing(self, work: UnitOfWork, caller: Principal, recipient_id: int | None) -> None:
        if await self._typists.ended(caller.id, recipient_id):
            work.announce(UserTyping(_profile(caller), typing=False, recipient_id=recipient_id), to_others=True)


async def _mark_read(work: UnitOfWork, caller: Principal, *which: ColumnElement[bool]) -> None:
    """Mark unread direct messages to the caller, and their notifications, as read. Announces each to its sender."""
    changed = await work.session.scalars(
        update(ChatMessage)
        .where(queries.unread(caller.id), *which)
        .values(**_read(dt.datetime.now(dt.UTC)))
        .returning(ChatMessage.id)
        .execution_options(synchronize_session=False)
    )
    message_ids = sorted(changed)
    for first in range(0, len(message_ids), READ_AT_ONCE):
        rows = await work.session.scalars(
            queries.these(message_ids[first : first + READ_AT_ONCE]).execution_options(populate_existing=True)
        )
        for row in rows:
            work.announce(MessageRead(DirectMessageOut.model_validate(row), _profile(caller)))
    await mark_about(work, _profile(caller), "private_message", "message_id", message_ids)


def _read(now: dt.datetime) -> dict[str, Any]:
    """Return the values of a message that is read now; it has been delivered, too."""
    delivered_at = func.coalesce(ChatMessage.delivered_at, literal(now, UtcDateTime()))
    return {"is_read": True, "read_at": now, "delivered_at": delivered_at, "updated_at": now}


def _ascending(rows: Sequence[ChatMessage], page: Page) -> Sequence[ChatMessage]:
    return rows[::-1] if page.after is None else rows


async def _add(work: UnitOfWork, caller: Principal, text: str, recipient_id: int | None) -> dict[str, Any]:
    """Insert a message. Returns its columns."""
    now = dt.datetime.now(dt.UTC)
    values = {
        "user_id": caller.id,
        "recipient_id": recipient_id,
        "message": text,
        "version": 1,
        "edited_at": None,
        "deleted_at": None,
        "is_read": False,
        "read_at": None,
        "delivered_at": None,
        "created_at": now,
        "updated_at": now,
    }
    # A plain INSERT is faster than the ORM, which has nothing to track here.
    return {"id": (await work.session.execute(_ADD, values)).scalar_one(), **values}


def _profile(caller: Principal) -> Profile:
    return Profile(id=caller.id, name=caller.name)


def _unknown_recipient() -> Invalid:
    return Invalid({"recipient_id": ["The selected recipient does not exist."]})


def _conversation(caller: Principal, message: DirectMessageOut, unread: dict[int, int]) -> Conversation:
    peer = message.recipient if message.user_id == caller.id else message.user
    return Conversation(user=peer, last_message=message, unread_count=unread.get(peer.id, 0))
