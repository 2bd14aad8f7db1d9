"""Idempotent requests: a response is stored by user, endpoint and `Idempotency-Key`, and returned to repeats.

The key's row is inserted first, in the transaction of the change. A concurrent request with the same key waits for
that row until the first one commits, then returns its response; if the first one is rolled back, it does the work.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, Any, TypeAlias

from fastapi import Header
from sqlalchemy import ForeignKey, Integer, String, Text, delete, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from smartlink.portal.shared.db import Base, BigId, UtcDateTime
from smartlink.portal.shared.errors import Invalid

__all__ = ["IdempotencyKey", "KeyHeader", "Once", "StoredResponse", "once", "prune"]

KEPT = dt.timedelta(hours=24)
MAX_KEY_LENGTH = 255
_Row: TypeAlias = tuple[int, str, str]
"""The primary key: user, endpoint, digest of the key."""

KeyHeader = Annotated[str | None, Header(alias="Idempotency-Key")]
"""The header, or None."""


class IdempotencyKey(Base):
    """A request that has been done or is in progress."""

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
class StoredResponse:
    """A stored response: its status, and its body byte for byte."""

    status: int
    body: str


@dataclass(slots=True)
class Once:
    """`response` is the stored one if the request has been done before. Otherwise the block sets it."""

    response: StoredResponse | None = None


@asynccontextmanager
async def once(
    session: AsyncSession, user_id: int, endpoint: str, key: str | None, content: str
) -> AsyncIterator[Once]:
    """Do a request at most once within the transaction of `session`; without a key, each time.

        async with once(session, caller.id, "chat.messages", key, text) as done:
            if done.response is None:
                done.response = StoredResponse(201, ...)

    Raises Invalid for a malformed key, and for one already used with a different `content`.
    """
    if key is None:
        yield Once()
        return
    if not 1 <= len(key) <= MAX_KEY_LENGTH:
        raise Invalid({"Idempotency-Key": [f"The Idempotency-Key must have 1 to {MAX_KEY_LENGTH} characters."]})
    # Stored as a digest, so that keys with any characters have one length.
    row = (user_id, endpoint, _sha256(key))
    done = Once(await _claim(session, row, _sha256(content)))
    is_new = done.response is None
    yield done
    if is_new and done.response is not None:
        values = {"status": done.response.status, "body": done.response.body}
        await session.execute(update(IdempotencyKey).where(*_is(row)).values(values))


async def _claim(session: AsyncSession, row: _Row, fingerprint: str) -> StoredResponse | None:
    """Insert the key's row. Returns the stored response if it exists already. Raises Invalid."""
    insert: Any = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
    user_id, endpoint, key = row
    claim = insert(IdempotencyKey).values(
        user_id=user_id, endpoint=endpoint, key=key, fingerprint=fingerprint, created_at=dt.datetime.now(dt.UTC)
    )
    claimed = await session.scalar(claim.on_conflict_do_nothing().returning(IdempotencyKey.user_id))
    if claimed is not None:
        return None
    stored = (
        await session.execute(
            select(IdempotencyKey.fingerprint, IdempotencyKey.status, IdempotencyKey.body).where(*_is(row))
        )
    ).one()
    if stored.fingerprint != fingerprint:
        raise Invalid({"Idempotency-Key": ["This Idempotency-Key has already been used for a different request."]})
    return StoredResponse(stored.status, stored.body)


async def prune(session: AsyncSession) -> None:
    """Delete responses older than a day."""
    await session.execute(delete(IdempotencyKey).where(IdempotencyKey.created_at < dt.datetime.now(dt.UTC) - KEPT))


def _is(row: _Row) -> tuple[Any, ...]:
    user_id, endpoint, key = row
    return (IdempotencyKey.user_id == user_id, IdempotencyKey.endpoint == endpoint, IdempotencyKey.key == key)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
