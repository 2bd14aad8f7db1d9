"""The tables of messages and of how far they were read."""

from __future__ import annotations

import datetime as dt

from sqlalchemy import Boolean, ForeignKey, Index, Integer, String, Text, false, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from smartlink.portal.shared.db import Base, BigId, UtcDateTime
from smartlink.portal.users.model import User

__all__ = ["GENERAL", "ChatMessage", "MessageVersion", "ReadPosition", "direct_room", "peer_of"]

GENERAL = "general"
"""The `room` of general chat."""

_GENERAL = text("recipient_id IS NULL")
_UNREAD = text("is_read = false")


class ChatMessage(Base):
    """A message to general chat (`recipient_id` null) or to one user.

    There is also a full-text index, `chat_messages_text`, which only its migration can define: a GIN index on
    PostgreSQL, a table maintained by triggers on SQLite.
    """

    __tablename__ = "chat_messages"
    __table_args__ = (
        Index("ix_chat_messages_general", "recipient_id", "id", sqlite_where=_GENERAL, postgresql_where=_GENERAL),
        Index("ix_chat_messages_sent", "user_id", "recipient_id", "id"),
        Index("ix_chat_messages_received", "recipient_id", "user_id", "id"),
        Index("ix_chat_messages_unread", "recipient_id", "user_id", sqlite_where=_UNREAD, postgresql_where=_UNREAD),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    recipient_id: Mapped[int | None] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    message: Mapped[str] = mapped_column(Text)
    """The present text; empty once it was deleted."""
    version: Mapped[int] = mapped_column(Integer, default=1, server_default=text("1"))
    """Rises with each change of the text, so that everybody applies changes in one order."""
    edited_at: Mapped[dt.datetime | None] = mapped_column(UtcDateTime)
    deleted_at: Mapped[dt.datetime | None] = mapped_column(UtcDateTime)
    is_read: Mapped[bool] = mapped_column(Boolean, default=False, server_default=false())
    read_at: Mapped[dt.datetime | None] = mapped_column(UtcDateTime)
    delivered_at: Mapped[dt.datetime | None] = mapped_column(UtcDateTime)
    """When the recipient's first page or application had received it; of direct messages only."""
    created_at: Mapped[dt.datetime] = mapped_column(UtcDateTime)
    updated_at: Mapped[dt.datetime] = mapped_column(UtcDateTime)

    user: Mapped[User] = relationship(foreign_keys=[user_id], lazy="raise")
    recipient: Mapped[User | None] = relationship(foreign_keys=[recipient_id], lazy="raise")


class MessageVersion(Base):
    """The text that a message had before it was edited or deleted."""

    __tablename__ = "message_versions"

    message_id: Mapped[int] = mapped_column(
        BigId, ForeignKey("chat_messages.id", ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    version: Mapped[int] = mapped_column(Integer, primary_key=True)
    message: Mapped[str] = mapped_column(Text)
    replaced_at: Mapped[dt.datetime] = mapped_column(UtcDateTime)


class ReadPosition(Base):
    """How far a user has read a room: all up to `last_read_id` is read, all after it unread.

    In a direct conversation, messages say themselves whether they were read. There a position exists only while
    messages that were read are marked as unread again.
    """

    __tablename__ = "read_positions"

    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), primary_key=True)
    room: Mapped[str] = mapped_column(String(40), primary_key=True)
    last_read_id: Mapped[int] = mapped_column(BigId)
    updated_at: Mapped[dt.datetime] = mapped_column(UtcDateTime)


def direct_room(peer_id: int) -> str:
    """Return the `room` of a user's direct conversation with another."""
    return f"direct.{peer_id}"


def peer_of(room: str) -> int:
    """Return the other user of a direct conversation's `room`."""
    return int(room.removeprefix("direct."))
