"""The table of presence."""

from __future__ import annotations

import datetime as dt

from sqlalchemy import BigInteger, Boolean, ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from smartlink.portal.shared.db import Base, BigId, UtcDateTime

__all__ = ["UserPresence"]


class UserPresence(Base):
    """One row per user: whether they have a connection on `presence-chat`, and when they were last seen."""

    __tablename__ = "user_presence"
    __table_args__ = (Index("ix_user_presence_online", "is_online", "last_seen"),)

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), unique=True)
    is_online: Mapped[bool] = mapped_column(Boolean)
    last_seen: Mapped[dt.datetime] = mapped_column(UtcDateTime)
    told_ms: Mapped[int] = mapped_column(BigInteger, server_default="0")
    """The time of the latest report applied, in milliseconds since 1970. Reports that are not newer are ignored."""
    created_at: Mapped[dt.datetime] = mapped_column(UtcDateTime)
    updated_at: Mapped[dt.datetime] = mapped_column(UtcDateTime)
