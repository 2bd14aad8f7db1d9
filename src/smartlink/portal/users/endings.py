"""Ends a user's connections when what they came by ends: a session, a token, a password, rights, or the account's use.

That it is to be done is recorded in the transaction that ends the other thing, so it is never lost: the process that
committed tells the realtime server at once, and while the server does not answer, workers try again until it has.
Only then is the record removed, unless it was asked for anew meanwhile.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
import secrets
import time
from typing import Any

from sqlalchemy import ForeignKey, String, delete, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from smartlink.background import Background, ended
from smartlink.portal.shared.db import Base, BigId, Database, UtcDateTime
from smartlink.portal.shared.errors import DatabaseAway
from smartlink.portal.shared.realtime import RealtimeApi, RealtimeAway

__all__ = ["ConnectionEnding", "Endings"]

log = logging.getLogger(__name__)

MAX_AT_ONCE = 1_000
"""So many users are told of at once by one process; the others are left to workers."""
RETRY_FOR_S = 60.0
LEFT_TO_WORKERS = dt.timedelta(seconds=2)
TAKEN_AT_ONCE = 500


class ConnectionEnding(Base):
    """One user whose connections are to be ended; `request` is another one each time it is asked for."""

    __tablename__ = "connection_endings"

    user_id: Mapped[int] = mapped_column(
        BigId, ForeignKey("users.id", ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    request: Mapped[str] = mapped_column(String(32))
    requested_at: Mapped[dt.datetime] = mapped_column(UtcDateTime)


class Endings:
    """`record` within the transaction, `begin` once it is committed; `run_once` is the workers' job."""

    def __init__(self, database: Database, realtime: RealtimeApi, background: Background | None = None) -> None:
        self._background = background or Background()
        self._database = database
        self._realtime = realtime
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._again: set[int] = set()
        """Of whom more was recorded since their task looked."""

    async def record(self, session: AsyncSession, user_id: int) -> None:
        """Note that all connections of this user are to be ended."""
        insert: Any = sqlite.insert if self._database.is_sqlite else postgresql.insert
        values = {"request": secrets.token_hex(16), "requested_at": dt.datetime.now(dt.UTC)}
        added = insert(ConnectionEnding).values(user_id=user_id, **values)
        await session.execute(added.on_conflict_do_update(index_elements=["user_id"], set_=values))

    def begin(self, user_id: int) -> None:
        """Tell the realtime server, without waiting for it."""
        if user_id in self._tasks:
            self._again.add(user_id)
        elif len(self._tasks) < MAX_AT_ONCE:
            self._tasks[user_id] = self._background.start("end connections", self._end(user_id))

    async def run_once(self) -> None:
        """Tell the realtime server of all that it was not told yet."""
        old = select(ConnectionEnding.user_id).where(
            ConnectionEnding.requested_at <= dt.datetime.now(dt.UTC) - LEFT_TO_WORKERS
        )
        async with self._database.reading() as session:
            waiting = (await session.scalars(old.order_by(ConnectionEnding.requested_at).limit(TAKEN_AT_ONCE))).all()
        for user_id in waiting:
            try:
                await self._tell(user_id)
            except RealtimeAway as error:
                log.warning("connections of %d users are still to be ended: %s", len(waiting), error)
                return

    async def ended(self) -> None:
        """Wait until nothing of `begin` is under way."""
        while self._tasks:
            await asyncio.wait(tuple(self._tasks.values()))

    async def aclose(self) -> None:
        """Stop; what is not told yet is recorded."""
        await ended(*self._tasks.values())

    async def _end(self, user_id: int) -> None:
        give_up, pause_s = time.monotonic() + RETRY_FOR_S, 0.2
        try:
            while True:
                self._again.discard(user_id)
                try:
                    is_done = not await self._tell(user_id)
                except RealtimeAway as error:
                    if time.monotonic() > give_up:
                        log.warning("connections of user %d are not ended yet; workers keep trying: %s", user_id, error)
                        return
                    await asyncio.sleep(pause_s)
                    pause_s = min(pause_s * 2, 2.0)
                    continue
                if is_done and user_id not in self._again:
                    return
        except DatabaseAway as error:
            log.warning("connections of user %d are not ended yet; workers keep trying: %s", user_id, error)
        finally:
            # In the same step as the last look: what comes after it begins another task.
            self._tasks.pop(user_id, None)

    async def _tell(self, user_id: int) -> bool:
        """Whether there may be more to tell of this user. Raises RealtimeAway, DatabaseAway."""
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
