"""The same request twice, done once: an answer is kept under its `Idempotency-Key`, per user and endpoint.

The key's row is written first, in the transaction of the change. A second request with the same key waits on that
row until the first is committed, and then finds its answer; if the first is rolled back, the second does the work.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Header
from sqlalchemy import ForeignKey, Integer, String, Text, delete, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from smartlink.portal.shared.db import Base, BigId, UtcDateTime
from smartlink.portal.shared.errors import Invalid

__all__ = ["IdempotencyKey", "IdempotentRequest", "KeyHeader", "StoredResponse", "begin", "finish", "prune"]

KEPT = dt.timedelta(hours=24)
MAX_KEY_LENGTH = 255

KeyHeader = Annotated[str | None, Header(alias="Idempotency-Key")]
"""The header, or None."""


class IdempotencyKey(Base):
    """One request that was, or is being, done."""

    __tablename__ = "idempotency_keys"

    user_id: Mapped[int] = mapped_column(
        BigId, ForeignKey("users.id", ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    endpoint: Mapped[str] = mapped_column(String(64), primary_key=True)
    key: Mapped[str] = mapped_column(String(64), primary_key=True)
    fingerprint: Mapped[str] = mapped_column(String(64))
    status: Mapped[int | None] = mapped_column(Integer)
    body: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[dt.datetime] = mapped_column(UtcDateTime, index=True)


@dataclass(frozen=True, slots=True)
class IdempotentRequest:
    """What makes two requests the same; `content` tells when they are not."""

    user_id: int
    endpoint: str
    key: str
    content: str

    def __post_init__(self) -> None:
        if not 1 <= len(self.key) <= MAX_KEY_LENGTH:
            raise Invalid({"Idempotency-Key": [f"The Idempotency-Key has 1 to {MAX_KEY_LENGTH} characters."]})

    @property
    def stored_key(self) -> str:
        """The key as stored: whatever characters it has, of one length."""
        return hashlib.sha256(self.key.encode()).hexdigest()

    @property
    def fingerprint(self) -> str:
        """A digest of what was asked."""
        return hashlib.sha256(self.content.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """A kept answer: its status and its body, byte by byte."""

    status: int
    body: str


async def begin(session: AsyncSession, request: IdempotentRequest) -> StoredResponse | None:
    """Claim the key; the kept answer when it was claimed before. Raises Invalid when that asked something else."""
    insert: Any = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
    claim = insert(IdempotencyKey).values(
        user_id=request.user_id,
        endpoint=request.endpoint,
        key=request.stored_key,
        fingerprint=request.fingerprint,
        created_at=dt.datetime.now(dt.UTC),
    )
    claimed = await session.scalar(claim.on_conflict_do_nothing().returning(IdempotencyKey.user_id))
    if claimed is not None:
        return None
    kept = (
        await session.execute(
            select(IdempotencyKey.fingerprint, IdempotencyKey.status, IdempotencyKey.body).where(*_is(request))
        )
    ).one()
    if kept.fingerprint != request.fingerprint:
        raise Invalid({"Idempotency-Key": ["This Idempotency-Key was used for another request."]})
    return StoredResponse(kept.status, kept.body)


async def finish(session: AsyncSession, request: IdempotentRequest, answer: StoredResponse) -> None:
    """Keep the answer with the key that was claimed."""
    await session.execute(update(IdempotencyKey).where(*_is(request)).values(status=answer.status, body=answer.body))


async def prune(session: AsyncSession) -> None:
    """Forget answers older than a day."""
    await session.execute(delete(IdempotencyKey).where(IdempotencyKey.created_at < dt.datetime.now(dt.UTC) - KEPT))


def _is(request: IdempotentRequest) -> tuple[Any, ...]:
    return (
        IdempotencyKey.user_id == request.user_id,
        IdempotencyKey.endpoint == request.endpoint,
        IdempotencyKey.key == request.stored_key,
    )
