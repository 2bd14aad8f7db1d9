"""The queries of chat. Each is served by an index of `chat_messages`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, func, literal_column, or_, select, text, union_all
from sqlalchemy.orm import aliased, selectinload

from smartlink.portal.chat.model import ChatMessage, MessageVersion
from smartlink.portal.shared.paging import Page, ordered, within

__all__ = [
    "between",
    "direct",
    "general",
    "last_of_each",
    "search",
    "seen_by",
    "these",
    "unread",
    "unread_of_each",
    "versions",
]


def general(page: Page) -> Select[ChatMessage]:
    """Select a page of general chat: newest first, or oldest first after an id."""
    found = select(ChatMessage).where(ChatMessage.recipient_id.is_(None), *within(ChatMessage.id, page))
    return found.options(selectinload(ChatMessage.user)).order_by(ordered(ChatMessage.id, page)).limit(page.limit)


def between(one: int, other: int, page: Page) -> Select[ChatMessage]:
    """Select a page of two users' messages, ordered like `general`. Merges the directions, each from its index."""
    directions = []
    for sender, recipient in ((one, other), (other, one)):
        direction = (
            select(ChatMessage.id)
            .where(ChatMessage.user_id == sender, ChatMessage.recipient_id == recipient, *within(ChatMessage.id, page))
            .order_by(ordered(ChatMessage.id, page))
            .limit(page.limit)
        )
        directions.append(select(direction.subquery().c.id))
    ids = union_all(*directions).subquery()
    found = select(ChatMessage).join(ids, ids.c.id == ChatMessage.id)
    return _with_both(found).order_by(ordered(ChatMessage.id, page)).limit(page.limit)


def direct(message_id: int, recipient_id: int) -> Select[ChatMessage]:
    """Select a direct message to this user."""
    found = select(ChatMessage).where(ChatMessage.id == message_id, ChatMessage.recipient_id == recipient_id)
    return _with_both(found)


def seen_by(user_id: int, message_id: int) -> Select[ChatMessage]:
    """Select a message if this user may see it."""
    return _with_both(select(ChatMessage).where(ChatMessage.id == message_id, _may_see(user_id)))


def versions(message_id: int) -> Select[MessageVersion]:
    """Select the earlier texts of a message, oldest first."""
    found = select(MessageVersion).where(MessageVersion.message_id == message_id)
    return found.order_by(MessageVersion.version)


def these(message_ids: Sequence[int]) -> Select[ChatMessage]:
    """Select direct messages by id, in ascending order."""
    return _with_both(select(ChatMessage).where(ChatMessage.id.in_(message_ids))).order_by(ChatMessage.id)


def last_of_each(user_id: int, limit: int) -> Select[ChatMessage]:
    """Select the last message of each of a user's conversations, newest first."""
    both = union_all(
        _last_by_peer(ChatMessage.user_id, ChatMessage.recipient_id, user_id),
        _last_by_peer(ChatMessage.recipient_id, ChatMessage.user_id, user_id),
    ).subquery()
    last = select(func.max(both.c.id).label("id")).group_by(both.c.peer).subquery()
    found = select(ChatMessage).join(last, last.c.id == ChatMessage.id)
    return _with_both(found).order_by(ChatMessage.id.desc()).limit(limit)


def _last_by_peer(own: Any, other: Any, user_id: int) -> Select[int, int]:
    """Select the peers on the `other` side of a user's messages, and the last message to or from each.

    Steps from peer to peer in the index, so it costs as much as there are peers, not messages.
    """
    peers = select(select(func.min(other)).where(own == user_id, other.is_not(None)).scalar_subquery().label("id")).cte(
        f"peers_by_{own.key}", recursive=True
    )
    following = select(func.min(other)).where(own == user_id, other > peers.c.id).scalar_subquery()
    peers = peers.union_all(select(following.correlate(peers)).where(peers.c.id.is_not(None)))
    last = select(func.max(ChatMessage.id)).where(own == user_id, other == peers.c.id).scalar_subquery()
    return select(peers.c.id.label("peer"), last.correlate(peers).label("id")).where(peers.c.id.is_not(None))


def unread_of_each(user_id: int) -> Select[int, int, int, int]:
    """Select the number of unread messages to this user, the first of them and the newest message, by sender."""
    received = aliased(ChatMessage)
    newest = (
        select(func.max(received.id))
        .where(received.recipient_id == user_id, received.user_id == ChatMessage.user_id)
        .scalar_subquery()
    )
    found = select(ChatMessage.user_id, func.count(), func.min(ChatMessage.id), newest).where(unread(user_id))
    return found.group_by(ChatMessage.user_id)


def unread(user_id: int) -> ColumnElement[bool]:
    """Return the condition for a user's unread messages, in the form of the partial index."""
    return and_(ChatMessage.recipient_id == user_id, ChatMessage.is_read == literal_column("false"))


def search(user_id: int, words: str, page: Page, *, is_sqlite: bool) -> Select[ChatMessage]:
    """Select messages that this user may see and that contain all `words` as prefixes. Ordered like `general`.

    `words` are letters and digits separated by spaces. The full-text index finds messages, then others' are excluded.
    """
    if is_sqlite:
        match = " ".join(f'"{word}"*' for word in words.split())
        rows = text("SELECT rowid FROM chat_messages_text WHERE chat_messages_text MATCH :match").bindparams(
            match=match
        )
        found = select(ChatMessage).where(ChatMessage.id.in_(rows))
    else:
        match = " & ".join(f"{word}:*" for word in words.split())
        vector = func.to_tsvector(literal_column("'simple'"), ChatMessage.message)
        found = select(ChatMessage).where(vector.op("@@")(func.to_tsquery(literal_column("'simple'"), match)))
    found = found.where(_may_see(user_id), *within(ChatMessage.id, page))
    return _with_both(found).order_by(ordered(ChatMessage.id, page)).limit(page.limit)


def _may_see(user_id: int) -> ColumnElement[bool]:
    return or_(ChatMessage.recipient_id.is_(None), ChatMessage.recipient_id == user_id, ChatMessage.user_id == user_id)


def _with_both(found: Select[ChatMessage]) -> Select[ChatMessage]:
    return found.options(selectinload(ChatMessage.user), selectinload(ChatMessage.recipient))
