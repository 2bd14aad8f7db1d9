"""The relay's side of `recorded_events`: what waits, in which calls it travels, and what became of it.

A row that waits is given the number of the call it will travel in (`batch`) before that call is made. A relay that
takes over after a crash makes the very same call again, and a service that knows idempotency keys sees a repeat.
Numbers rise in the order of claims, so that working through them in order keeps every channel's order.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from sqlalchemy import BindParameter, Integer, bindparam, func, literal_column, select, update
from sqlalchemy.ext.asyncio import AsyncEngine

from smartlink.broadcasting.drivers.base import MAX_BATCH
from smartlink.broadcasting.envelope import Envelope, Promise
from smartlink.broadcasting.outbox.record import with_event_id
from smartlink.broadcasting.outbox.tables import FAILED, PENDING, SENT, OutboxTables

__all__ = ["MAX_BACKOFF_S", "PendingQueue", "Waiting", "batch_key"]

MAX_BACKOFF_S = 2.0
_FIRST_BACKOFF_S = 0.1
_MAX_ERROR_CHARACTERS = 500


@dataclass(frozen=True, slots=True)
class Waiting:
    """A recorded event that waits to be sent."""

    id: int
    channel: str
    name: str
    payload: str
    socket_id: str | None
    promise: str
    batch: int | None
    attempts: int
    created_at: dt.datetime

    def envelope(self) -> Envelope:
        """The event as it travels; a durable one carries its id."""
        promise = Promise(self.promise)
        payload = with_event_id(self.payload, self.id) if promise is Promise.DURABLE else self.payload
        return Envelope(self.channel, self.name, payload, self.socket_id, promise)


def batch_key(batch: Sequence[Waiting]) -> str:
    """The idempotency key of one call: the same for the same events, and never for those of another database."""
    digest = hashlib.sha256()
    for event in batch:
        fields = f"{event.id}\n{event.created_at.timestamp():.6f}\n{event.channel}\n{event.name}\n{event.payload}\n"
        digest.update(fields.encode())
    return digest.hexdigest()[:40]


class PendingQueue:
    """Reads and writes the states of recorded events; only the holder of the lease may use it."""

    def __init__(self, engine: AsyncEngine, tables: OutboxTables) -> None:
        self._engine = engine
        self._events = events = tables.recorded_events
        # Written out, not bound: only so does PostgreSQL see that its partial indexes fit.
        self._is_pending = events.c.state == literal_column(f"'{PENDING}'")
        held = (
            select(events.c.channel)
            .where(
                self._is_pending,
                events.c.available_at.is_not(None),
                events.c.available_at > bindparam("now"),
                events.c.available_at <= bindparam("horizon"),
            )
            .scalar_subquery()
        )
        self._waiting = (
            select(*(events.c[name] for name in Waiting.__slots__))
            .where(self._is_pending, events.c.channel.not_in(held))
            .order_by(events.c.id)
            .limit(bindparam("at_most", type_=Integer))
        )
        members: list[BindParameter[int]] = [bindparam(f"member_{index}") for index in range(MAX_BATCH)]
        self._claim = update(events).where(events.c.id.in_(members)).values(batch=bindparam("claim"))

    async def last_batch(self) -> int:
        """The highest number given to a call that has not been made yet, 0 without any."""
        async with self._engine.connect() as connection:
            return await connection.scalar(select(func.max(self._events.c.batch)).where(self._is_pending)) or 0

    async def waiting(self, at_most: int) -> list[Waiting]:
        """What can be sent now, lowest ids first: all that waits, but for channels that are held back."""
        now = dt.datetime.now(dt.UTC)
        # Nothing is held for longer than the horizon; what seems to be is from a clock that was turned back.
        horizon = now + dt.timedelta(seconds=2 * MAX_BACKOFF_S)
        async with self._engine.connect() as connection:
            found = await connection.execute(self._waiting, {"now": now, "horizon": horizon, "at_most": at_most})
            return [Waiting(*row) for row in found]

    async def claim(self, events: Sequence[Waiting], next_batch: int) -> list[Sequence[Waiting]]:
        """Give numbers from `next_batch` on to those that have none; all of them by call, in the order to make."""
        fresh = [event for event in events if event.batch is None]
        claimed = [event for event in events if event.batch is not None]
        claims = []
        for number, batch in enumerate(_tens(fresh), start=next_batch):
            ids = [event.id for event in batch]
            ids += [ids[-1]] * (MAX_BATCH - len(ids))
            claims.append({"claim": number, **{f"member_{index}": each for index, each in enumerate(ids)}})
            claimed += [replace(event, batch=number) for event in batch]
        if claims:
            async with self._engine.begin() as connection:
                await connection.execute(self._claim, claims)
        claimed.sort(key=lambda event: (event.batch or 0, event.id))
        batches = [list(group) for _, group in groupby(claimed, key=lambda event: event.batch)]
        return [batch for group in batches for batch in _tens(group)]

    async def mark_sent(self, ids: Sequence[int]) -> None:
        """The service has taken these."""
        await self._change(ids, state=SENT, sent_at=dt.datetime.now(dt.UTC), error=None)

    async def mark_failed(self, event: Waiting, error: str) -> None:
        """The service will never take this one: out of the way, for a person to look at."""
        await self._change([event.id], state=FAILED, attempts=event.attempts + 1, error=error[:_MAX_ERROR_CHARACTERS])

    async def hold(self, batch: Sequence[Waiting], error: str) -> None:
        """Keep these, and with them their channels, for a while that grows to two seconds."""
        attempts = max(event.attempts for event in batch)
        delay_s = min(MAX_BACKOFF_S, _FIRST_BACKOFF_S * 2.0 ** min(attempts, 10))
        await self._change(
            [event.id for event in batch],
            attempts=self._events.c.attempts + 1,
            available_at=dt.datetime.now(dt.UTC) + dt.timedelta(seconds=delay_s),
            error=error[:_MAX_ERROR_CHARACTERS],
        )

    async def _change(self, ids: Sequence[int], **values: object) -> None:
        statement = update(self._events).where(self._events.c.id.in_(ids), self._is_pending).values(**values)
        async with self._engine.begin() as connection:
            await connection.execute(statement)


def _tens(events: Sequence[Waiting]) -> Iterable[Sequence[Waiting]]:
    return (events[start : start + MAX_BATCH] for start in range(0, len(events), MAX_BATCH))
