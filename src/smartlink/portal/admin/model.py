"""Tables of the admin feature: samples of figures, and the audit log."""

from __future__ import annotations

import datetime as dt
from typing import Any

from sqlalchemy import JSON, ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column, relationship

from smartlink.portal.shared.db import Base, BigId, UtcDateTime
from smartlink.portal.users.model import User

__all__ = ["AuditEntry", "FigureSample"]


class FigureSample(Base):
    """The figures at one time, kept for an hour."""

    __tablename__ = "figure_samples"
    __table_args__ = (Index("ix_figure_samples_at", "at"), {"sqlite_autoincrement": True})

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    at: Mapped[dt.datetime] = mapped_column(UtcDateTime)
    figures: Mapped[dict[str, Any]] = mapped_column(JSON)


class AuditEntry(Base):
    """An action of an admin, its target and details. Entries are never changed or deleted."""

    __tablename__ = "audit_entries"
    __table_args__ = (Index("ix_audit_entries_admin", "admin_id"), {"sqlite_autoincrement": True})

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    admin_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    action: Mapped[str] = mapped_column(String(32))
    target: Mapped[str] = mapped_column(String(200))
    detail: Mapped[dict[str, Any]] = mapped_column(JSON)
    created_at: Mapped[dt.datetime] = mapped_column(UtcDateTime)

    admin: Mapped[User] = relationship(lazy="raise")
