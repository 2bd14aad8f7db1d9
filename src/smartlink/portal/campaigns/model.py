"""Tables of campaigns and their activity."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

from sqlalchemy import JSON, ForeignKey, Index, Integer, String, Text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from smartlink.portal.shared.db import Base, BigId, UtcDateTime
from smartlink.portal.shared.money import MoneyColumn
from smartlink.portal.users.model import User

__all__ = ["Campaign", "CampaignActivity"]


class Campaign(Base):
    """A campaign. `version` rises by one with each change."""

    __tablename__ = "campaigns"
    __table_args__ = (
        Index("ix_campaigns_owner", "user_id", "id"),
        Index("ix_campaigns_status", "status", "id"),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    name: Mapped[str] = mapped_column(String(100))
    description: Mapped[str | None] = mapped_column(Text)
    status: Mapped[str] = mapped_column(String(16))
    budget: Mapped[Decimal] = mapped_column(MoneyColumn)
    starts_at: Mapped[dt.datetime | None] = mapped_column(UtcDateTime)
    ends_at: Mapped[dt.datetime | None] = mapped_column(UtcDateTime)
    version: Mapped[int] = mapped_column(Integer)
    created_at: Mapped[dt.datetime] = mapped_column(UtcDateTime)
    updated_at: Mapped[dt.datetime] = mapped_column(UtcDateTime)


class CampaignActivity(Base):
    """An action on a campaign; `changes` is `{field: [old, new]}`."""

    __tablename__ = "campaign_activities"
    __table_args__ = (
        Index("ix_campaign_activities_campaign", "campaign_id", "id"),
        Index("ix_campaign_activities_user", "user_id"),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    campaign_id: Mapped[int] = mapped_column(ForeignKey("campaigns.id", ondelete="CASCADE"))
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    action: Mapped[str] = mapped_column(String(16))
    changes: Mapped[dict[str, Any]] = mapped_column(JSON)
    created_at: Mapped[dt.datetime] = mapped_column(UtcDateTime)

    user: Mapped[User] = relationship(lazy="raise")
