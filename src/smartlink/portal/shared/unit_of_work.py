"""Change, then announce: the one way the portal changes anything.

    async with announcer.work() as work:
        message = await messages.add(work.session, ...)
        work.announce(MessageSent(message), to_others=True)

Durable and state events are recorded at the end of the same transaction, so they exist if and only if the change
does. After the commit the relay is woken, and live events are sent, in order, without the outbox.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from sqlalchemy.ext.asyncio import AsyncSession

from smartlink.background import Background, ended
from smartlink.broadcasting import Broadcaster, BroadcastEvent, BroadcastFailed, Delivery, Envelope
from smartlink.broadcasting.drivers.base import reports_receipts
from smartlink.broadcasting.outbox import Outbox
from smartlink.portal.shared.db import Database

__all__ = ["Announcer", "LiveSender", "UnitOfWork"]

log = logging.getLogger(__name__)


class UnitOfWork:
    """One transaction and the events it announces. Make changes with `session`."""

    def __init__(self, session: AsyncSession, broadcaster: Broadcaster) -> None:
        self.session = session
        self._broadcaster = broadcaster
        self._envelopes: list[Envelope] = []

    def announce(self, event: BroadcastEvent, *, to_others: bool = False, receipts: bool = False) -> None:
        """Announce `event` if this work is committed. `to_others` excludes the request's own socket.

        With `receipts`, the realtime server reports by webhook who has received it, if it can.

        Raises what `Broadcaster.pack` raises, which rolls the work back.
        """
        self._envelopes += self._broadcaster.pack(
            event, to_others=to_others, receipts=receipts and reports_receipts(self._broadcaster.driver)
        )

    def recorded(self) -> list[Envelope]:
        """Return the envelopes for the outbox, in order."""
        return [envelope for envelope in self._envelopes if envelope.delivery is not Delivery.LIVE]

    def live(self) -> list[Envelope]:
        """Return the envelopes to send straight after the commit, in order."""
        return [envelope for envelope in self._envelopes if envelope.delivery is Delivery.LIVE]


class Announcer:
    """Opens units of work, and sends live events that belong to no change."""

    def __init__(
        self, database: Database, broadcaster: Broadcaster, outbox: Outbox, background: Background | None = None
    ) -> None:
        self.background = background or Background()
        self.database = database
        self.outbox = outbox
        self.broadcaster = broadcaster
        self.live = LiveSender(broadcaster, self.background)
        self.listeners: list[Callable[[Sequence[Envelope]], None]] = []
        """Functions called with what was committed or sent live. They must not block or raise."""

    @asynccontextmanager
    async def work(self) -> AsyncIterator[UnitOfWork]:
        """Open a unit of work. It is committed and announced when the block ends, neither when the block raises."""
        async with self.database.writing() as session:
            work = UnitOfWork(session, self.broadcaster)
            yield work
            recorded = work.recorded()
            await self.outbox.record(session, recorded)
        if recorded:
            self.outbox.wake({envelope.queue for envelope in recorded})
        self.live.put(work.live())
        self._notify([*recorded, *work.live()])

    def say(self, event: BroadcastEvent, *, to_others: bool = False) -> None:
        """Send a live event at once. Raises ValueError for events that must be recorded."""
        if event.delivery is not Delivery.LIVE:
            raise ValueError(f"{type(event).__name__} is {event.delivery}: announce it in a unit of work")
        envelopes = self.broadcaster.pack(event, to_others=to_others)
        self.live.put(envelopes)
        self._notify(envelopes)

    def _notify(self, envelopes: Sequence[Envelope]) -> None:
        for listener in self.listeners if envelopes else ():
            listener(envelopes)


class LiveSender:
    """Sends live events in order, in the background.

    Up to `room` events wait; beyond that the oldest is dropped and counted in `dropped`.
    """

    def __init__(self, broadcaster: Broadcaster, background: Background, room: int = 1000) -> None:
        self.dropped = 0
        self._background = background
        self._broadcaster = broadcaster
        self._waiting: deque[Envelope] = deque()
        self._room = room
        self._task: asyncio.Task[None] | None = None

    def put(self, envelopes: Sequence[Envelope]) -> None:
        """Queue `envelopes` to be sent by a background task."""
        if not envelopes:
            return
        for envelope in envelopes:
            if len(self._waiting) >= self._room:
                self._waiting.popleft()
                self.dropped += 1
            self._waiting.append(envelope)
        if self._task is None or self._task.done():
            self._task = self._background.start("live events", self._send_all())

    async def drained(self) -> None:
        """Wait until the queue is empty."""
        if self._task is not None:
            await self._task

    async def aclose(self) -> None:
        """Drop the queue and stop."""
        self._waiting.clear()
        await ended(self._task)

    async def _send_all(self) -> None:
        while self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(10, len(self._waiting)))]
            try:
                await self._broadcaster.send_envelopes(batch)
            except BroadcastFailed as error:
                self.dropped += len(batch)
                log.warning("%d live events dropped: %s", len(batch), type(error).__name__)
