"""Takes channels from users who may no longer be on them, without ending their connections.

Recorded in the transaction that ends the right, so a revocation is never lost. The process that committed it calls the
realtime server at once; while the server does not answer, workers retry. Where the server cannot revoke, the user's
connections are ended instead.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
import time
from collections.abc import Awaitable, Callable, Sequence

from sqlalchemy import ForeignKey, Select, String, delete, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from smartlink.background import Background, ended
from smartlink.backoff import Backoff
from smartlink.broadcasting import (
    BroadcastConfigError,
    Broadcaster,
    BroadcastRefused,
    BroadcastUnavailable,
    Channel,
    Revocation,
)
from smartlink.portal.shared.db import Base, BigId, Database, UtcDateTime
from smartlink.portal.shared.errors import DatabaseAway
from smartlink.portal.users.endings import Endings

__all__ = ["AdminChannels", "ChannelRevocation", "ChannelRevocations"]

log = logging.getLogger(__name__)

RETRY_FOR_S = 60.0
LEFT_TO_WORKERS = dt.timedelta(seconds=2)
TAKEN_AT_ONCE = 500

AdminChannels = Callable[[AsyncSession, int], Awaitable[Sequence[Channel] | None]]
"""The channels that a user could be on only as an admin; None if there are too many to revoke one by one."""


class ChannelRevocation(Base):
    """A revocation to carry out: without `user_id` for everyone, without `channel` for what only admins may see."""

    __tablename__ = "channel_revocations"

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    channel: Mapped[str | None] = mapped_column(String(200))
    user_id: Mapped[int | None] = mapped_column(BigId, ForeignKey("users.id", ondelete="CASCADE"), index=True)
    reason: Mapped[str] = mapped_column(String(200))
    requested_at: Mapped[dt.datetime] = mapped_column(UtcDateTime)


class ChannelRevocations:
    """Call `everyone` or `former_admin` within the transaction and `begin` after its commit.

    `run_once` is the workers' job.
    """

    def __init__(
        self,
        database: Database,
        broadcaster: Broadcaster,
        endings: Endings,
        admin_channels: AdminChannels,
        background: Background | None = None,
    ) -> None:
        self._background = background or Background()
        self._database = database
        self._broadcaster = broadcaster
        self._endings = endings
        self._admin_channels = admin_channels
        self._task: asyncio.Task[None] | None = None
        self._again = False
        """There is a newer revocation than those the task has read."""

    def everyone(self, session: AsyncSession, channels: Sequence[Channel], reason: str) -> None:
        """Record that everyone loses these channels."""
        now = dt.datetime.now(dt.UTC)
        session.add_all(ChannelRevocation(channel=str(each), reason=reason, requested_at=now) for each in channels)

    def former_admin(self, session: AsyncSession, user_id: int, reason: str) -> None:
        """Record that a user loses the channels that only admins may be on."""
        now = dt.datetime.now(dt.UTC)
        session.add(ChannelRevocation(user_id=user_id, reason=reason, requested_at=now))

    def begin(self) -> None:
        """Start carrying out what is recorded, in the background."""
        self._again = True
        if self._task is None:
            self._task = self._background.start("revoke channels", self._run())

    @staticmethod
    def left() -> Select[ChannelRevocation]:
        """Return a query for the revocations that are left to `run_once`."""
        until = dt.datetime.now(dt.UTC) - LEFT_TO_WORKERS
        return select(ChannelRevocation).where(ChannelRevocation.requested_at <= until)

    async def run_once(self) -> None:
        """Carry out what no process has within two seconds."""
        try:
            await self._carry_out(self.left())
        except BroadcastUnavailable as error:
            log.warning("channels could not be revoked yet: %s", error)

    async def ended(self) -> None:
        """Wait until no task of `begin` is running."""
        if self._task is not None:
            await asyncio.wait([self._task])

    async def aclose(self) -> None:
        """Stop. What is not carried out yet remains recorded."""
        if self._task is not None:
            await ended(self._task)

    async def _run(self) -> None:
        give_up, backoff = time.monotonic() + RETRY_FOR_S, Backoff(0.2, 2.0)
        try:
            while self._again:
                self._again = False
                try:
                    await self._carry_out(select(ChannelRevocation))
                except BroadcastUnavailable as error:
                    if time.monotonic() > give_up:
                        log.warning("channels not revoked yet, workers keep trying: %s", error)
                        return
                    self._again = True
                    await asyncio.sleep(backoff.next_s())
        except DatabaseAway as error:
            log.warning("channels not revoked yet, workers keep trying: %s", error)
        finally:
            # In the same step as the last check, so that later requests start a new task.
            self._task = None

    async def _carry_out(self, which: Select[ChannelRevocation]) -> None:
        """Carry out `which`, oldest first. Raises BroadcastUnavailable, DatabaseAway."""
        oldest = which.order_by(ChannelRevocation.id).limit(TAKEN_AT_ONCE)
        while rows := await self._read(oldest):
            for row in rows:
                await self._handle(row)

    async def _read(self, found: Select[ChannelRevocation]) -> Sequence[ChannelRevocation]:
        async with self._database.reading() as session:
            return (await session.scalars(found)).all()

    async def _handle(self, row: ChannelRevocation) -> None:
        user_id = row.user_id
        must_end = not await self._revoke(row) and user_id is not None
        async with self._database.writing() as session:
            await session.execute(delete(ChannelRevocation).where(ChannelRevocation.id == row.id))
            if must_end and user_id is not None:
                await self._endings.record(session, user_id)
        if must_end and user_id is not None:
            self._endings.begin(user_id)

    async def _revoke(self, row: ChannelRevocation) -> bool:
        """Return whether all of it was revoked; False if the server, or this way, cannot."""
        user_id = None if row.user_id is None else str(row.user_id)
        names: Sequence[str] | None = [row.channel] if row.channel is not None else None
        if names is None and row.user_id is not None:
            async with self._database.reading() as session:
                channels = await self._admin_channels(session, row.user_id)
            names = None if channels is None else [str(each) for each in channels]
        if names is None:
            return False
        try:
            for name in names:
                await self._broadcaster.send_revocation(Revocation(name, user_id, row.reason))
        except (BroadcastRefused, BroadcastConfigError) as error:
            log.info("channels are not revoked: %s", error)
            return False
        return True
