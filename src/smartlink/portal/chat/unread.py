"""What a user has not read, per room, and how far they have read: the same on all their devices."""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import ColumnElement, and_, delete, func, or_, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession

from smartlink.portal.chat import queries
from smartlink.portal.chat.events import UnreadChanged
from smartlink.portal.chat.model import GENERAL, ChatMessage, ReadPosition, direct_room, peer_of
from smartlink.portal.chat.schemas import RoomUnread
from smartlink.portal.shared.unit_of_work import UnitOfWork
from smartlink.portal.users.schemas import Profile

__all__ = [
    "announcing_unread",
    "begin_general",
    "forget_position",
    "keep_position",
    "read_general",
    "unread_counts",
    "unread_in",
    "unread_rooms",
]

MOST_COUNTED = 100


async def unread_rooms(session: AsyncSession, user_id: int) -> list[RoomUnread]:
    """Return general chat, and the direct conversations with unread messages."""
    rooms = {peer_id: room async for peer_id, room in _direct(session, user_id)}
    return [await unread_in(session, user_id, None), *rooms.values()]


async def unread_counts(session: AsyncSession, user_id: int) -> dict[int, int]:
    """Return the exact number of unread messages in each direct conversation that has some, by the other user."""
    counts = {sender: count for sender, count, _, _ in await session.execute(queries.unread_of_each(user_id))}
    for peer_id in await _marked(session, user_id):
        counts[peer_id] = (await unread_in(session, user_id, peer_id)).unread_count
    return counts


async def _direct(session: AsyncSession, user_id: int) -> AsyncIterator[tuple[int, RoomUnread]]:
    for sender, count, first, last in await session.execute(queries.unread_of_each(user_id)):
        yield (
            sender,
            RoomUnread(
                peer_id=sender, unread_count=min(count, MOST_COUNTED), first_unread_id=first, last_message_id=last
            ),
        )
    for peer_id in await _marked(session, user_id):
        yield peer_id, await unread_in(session, user_id, peer_id)


async def _marked(session: AsyncSession, user_id: int) -> list[int]:
    """Return the direct conversations that were marked as unread, by the other user."""
    of_user = ReadPosition.user_id == user_id, ReadPosition.room != GENERAL
    return [peer_of(room) for room in await session.scalars(select(ReadPosition.room).where(*of_user))]


async def unread_in(session: AsyncSession, user_id: int, peer_id: int | None) -> RoomUnread:
    """Return what is unread in general chat (`peer_id` None) or in a direct conversation."""
    position = await session.get(ReadPosition, (user_id, _room(peer_id)), populate_existing=True)
    newest = await _newest(session, user_id, peer_id)
    if peer_id is None:
        is_unread: ColumnElement[bool] = ChatMessage.id > (newest if position is None else position.last_read_id)
        which = [*_received(user_id, None), is_unread]
    elif position is None:
        which = [ChatMessage.user_id == peer_id, queries.unread(user_id)]
    else:
        which = [*_received(user_id, peer_id), or_(queries.unread(user_id), ChatMessage.id > position.last_read_id)]
    first = await session.scalar(select(func.min(ChatMessage.id)).where(*which))
    some = select(ChatMessage.id).where(*which).limit(MOST_COUNTED).subquery()
    count = await session.scalar(select(func.count()).select_from(some)) if first is not None else 0
    return RoomUnread(peer_id=peer_id, unread_count=count or 0, first_unread_id=first, last_message_id=newest)


async def begin_general(session: AsyncSession, user_id: int) -> None:
    """Let a user who has no position in general chat begin at its end."""
    await keep_position(session, user_id, None, await _newest(session, user_id, None))


async def read_general(session: AsyncSession, user_id: int, last_read_id: int) -> None:
    """Store that a user has read general chat up to a message. What was not written cannot have been read."""
    await keep_position(session, user_id, None, min(last_read_id, await _newest(session, user_id, None)))


async def keep_position(
    session: AsyncSession, user_id: int, peer_id: int | None, last_read_id: int, *, only_forward: bool = True
) -> None:
    """Store how far a room was read; with `only_forward`, never less far than before."""
    insert: Any = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
    values = {"last_read_id": last_read_id, "updated_at": dt.datetime.now(dt.UTC)}
    kept = insert(ReadPosition).values(user_id=user_id, room=_room(peer_id), **values)
    where = ReadPosition.last_read_id < last_read_id if only_forward else None
    await session.execute(kept.on_conflict_do_update(index_elements=["user_id", "room"], set_=values, where=where))


async def forget_position(session: AsyncSession, user_id: int, peer_id: int, last_read_id: int) -> None:
    """End the mark of a direct conversation as unread, if it was read up to its newest message; else move it."""
    which = (ReadPosition.user_id == user_id, ReadPosition.room == direct_room(peer_id))
    if last_read_id >= await _newest(session, user_id, peer_id):
        await session.execute(delete(ReadPosition).where(*which).execution_options(synchronize_session=False))
    elif await session.scalar(select(ReadPosition.room).where(*which)) is not None:
        await keep_position(session, user_id, peer_id, last_read_id)


@asynccontextmanager
async def announcing_unread(work: UnitOfWork, user: Profile, peer_id: int | None) -> AsyncIterator[None]:
    """Announce to the user's pages what is unread in a room, if the block changes it."""
    before = await unread_in(work.session, user.id, peer_id)
    yield
    after = await unread_in(work.session, user.id, peer_id)
    if after != before:
        work.announce(UnreadChanged([after], user))


async def _newest(session: AsyncSession, user_id: int, peer_id: int | None) -> int:
    """Return the id of the newest message in general chat, or of the newest one that this user sent."""
    which = ChatMessage.recipient_id.is_(None) if peer_id is None else and_(*_received(user_id, peer_id))
    return await session.scalar(select(func.max(ChatMessage.id)).where(which)) or 0


def _received(user_id: int, peer_id: int | None) -> list[ColumnElement[bool]]:
    """Return the conditions for what others sent to a room."""
    if peer_id is None:
        return [ChatMessage.recipient_id.is_(None), ChatMessage.user_id != user_id]
    return [ChatMessage.recipient_id == user_id, ChatMessage.user_id == peer_id]


def _room(peer_id: int | None) -> str:
    return GENERAL if peer_id is None else direct_room(peer_id)
