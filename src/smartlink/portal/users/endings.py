"""Ends a user's connections when a session, token or password is revoked, or the user is demoted or blocked.

The request is recorded in the same transaction, so it is never lost. The process that committed it calls the realtime
server at once; while the server does not answer, workers retry. The record is deleted once the server has answered,
unless the same was requested again meanwhile.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
import secrets
import time
from typing import Any

from sqlalchemy import ForeignKey, Select, String, delete, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from smartlink.background import Background, ended
from smartlink.backoff import Backoff
from smartlink.portal.shared.db import Base, BigId, Database, UtcDateTime
from smartlink.portal.shared.errors import DatabaseAway
from smartlink.portal.shared.realtime import RealtimeApi, RealtimeAway

__all__ = ["ConnectionEnding", "Endings"]

log = logging.getLogger(__name__)

MAX_AT_ONCE = 1_000
"""The number of users that one process handles at once; the others are left to workers."""
RETRY_FOR_S = 60.0
LEFT_TO_WORKERS = dt.timedelta(seconds=2)
TAKEN_AT_ONCE = 500


class ConnectionEnding(Base):
    """A user whose connections are to be ended. Each request has a new random `request`."""

    __tablename__ = "connection_endings"

    user_id: Mapped[int] = mapped_column(
        BigId, ForeignKey("users.id", ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    request: Mapped[str] = mapped_column(String(32))
    requested_at: Mapped[dt.datetime] = mapped_column(UtcDateTime)


class Endings:
    """Call `record` within the transaction and `begin` after its commit. `run_once` is the workers' job."""

    def __init__(self, database: Database, realtime: RealtimeApi, background: Background | None = None) -> None:
        self._background = background or Background()
        self._database = database
        self._realtime = realtime
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._again: set[int] = set()
        """Users with a newer request than the one their task has read."""

    async def record(self, session: AsyncSession, user_id: int) -> None:
        """Record that all connections of this user are to be ended."""
        insert: Any = sqlite.insert if self._database.is_sqlite else postgresql.insert
        values = {"request": secrets.token_hex(16), "requested_at": dt.datetime.now(dt.UTC)}
        added = insert(ConnectionEnding).values(user_id=user_id, **values)
        await session.execute(added.on_conflict_do_update(index_elements=["user_id"], set_=values))

    def begin(self, user_id: int) -> None:
        """Start ending the user's connections in the background."""
        if user_id in self._tasks:
            self._again.add(user_id)
        elif len(self._tasks) < MAX_AT_ONCE:
            self._tasks[user_id] = self._background.start("end connections", self._end(user_id))

    @staticmethod
    def left() -> Select[int]:
        """Return a query for the users whose connections are left to `run_once`."""
        until = dt.datetime.now(dt.UTC) - LEFT_TO_WORKERS
        return select(ConnectionEnding.user_id).where(ConnectionEnding.requested_at <= until)

    async def run_once(self) -> None:
        """End all recorded connections that no process has handled within two seconds."""
        oldest = self.left().order_by(ConnectionEnding.requested_at).limit(TAKEN_AT_ONCE)
        async with self._database.reading() as session:
            waiting = (await session.scalars(oldest)).all()
        for user_id in waiting:
            try:
                await self._handle(user_id)
            except RealtimeAway as error:
                log.warning("connections of %d users could not be ended yet: %s", len(waiting), error)
                return

    async def ended(self) -> None:
        """Wait until no task of `begin` is running."""
        while self._tasks:
            await asyncio.wait(tuple(self._tasks.values()))

    async def aclose(self) -> None:
        """Stop. Requests not handled yet remain recorded."""
        await ended(*self._tasks.values())

    async def _end(self, user_id: int) -> None:
        give_up, backoff = time.monotonic() + RETRY_FOR_S, Backoff(0.2, 2.0)
        try:
            while True:
                self._again.discard(user_id)
                try:
                    is_done = not await self._handle(user_id)
                except RealtimeAway as error:
                    if time.monotonic() > give_up:
                        log.warning("connections of user %d not ended yet, workers keep trying: %s", user_id, error)
                        return
                    await asyncio.sleep(backoff.next_s())
                    continue
                if is_done and user_id not in self._again:
                    return
        except DatabaseAway as error:
            log.warning("connections of user %d not ended yet, workers keep trying: %s", user_id, error)
        finally:
            # In the same step as the last check, so that later requests start a new task.
            self._tasks.pop(user_id, None)

    async def _handle(self, user_id: int) -> bool:
        """Handle a request of this user; return whether there was one. Raises RealtimeAway, DatabaseAway."""
        async with self._database.reading() as session:
            asked = select(ConnectionEnding.request).where(ConnectionEnding.user_id == user_id)
            request = await session.scalar(asked)
        if request is None:
            return False
        await self._realtime.terminate(user_id)
        done = delete(ConnectionEnding).where(ConnectionEnding.user_id == user_id, ConnectionEnding.request == request)
        async with self._database.writing() as session:
            await session.execute(done)
        return True
