"""The table of messages."""

from __future__ import annotations

import datetime as dt

from sqlalchemy import Boolean, ForeignKey, Index, Text, false, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from smartlink.portal.shared.db import Base, BigId, UtcDateTime
from smartlink.portal.users.model import User

__all__ = ["ChatMessage"]

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
    is_read: Mapped[bool] = mapped_column(Boolean, default=False, server_default=false())
    read_at: Mapped[dt.datetime | None] = mapped_column(UtcDateTime)
    delivered_at: Mapped[dt.datetime | None] = mapped_column(UtcDateTime)
    """When the recipient's first page or application had received it; of direct messages only."""
    created_at: Mapped[dt.datetime] = mapped_column(UtcDateTime)
    updated_at: Mapped[dt.datetime] = mapped_column(UtcDateTime)

    user: Mapped[User] = relationship(foreign_keys=[user_id], lazy="raise")
    recipient: Mapped[User | None] = relationship(foreign_keys=[recipient_id], lazy="raise")
