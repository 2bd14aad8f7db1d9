"""Reads waiting events from `recorded_events` and writes their states.

Each call is one statement in its own transaction. Writes affect only events that are still waiting, so that a worker
that has lost a part to another one cannot undo what that one did.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec
from sqlalchemy import BigInteger, SmallInteger, Text, bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncEngine

from smartlink.broadcasting.envelope import Delivery, Envelope
from smartlink.broadcasting.outbox.pgbouncer import outside_transactions
from smartlink.broadcasting.outbox.record import with_event_id
from smartlink.broadcasting.outbox.tables import FAILED, PENDING, SENT, OutboxTables, UtcDateTime

__all__ = ["MAX_BACKOFF_S", "PendingEvent", "PendingQueue", "backoff_s", "batch_key", "place_of"]

MAX_BACKOFF_S = 2.0
_FIRST_BACKOFF_S = 0.1
_MAX_ERROR_CHARACTERS = 500
# Naming the default connection is the same as naming none, so that both keep one order.
_OWN = "NULLIF(connection, :default)"
_COLUMNS = (
    f"id, channel, name, payload, socket_id, delivery, {_OWN}, except_user, receipts, queue, part, attempts, strikes, "
    "trace"
)
_CONNECTION = f"COALESCE({_OWN}, '')"
_PLACE = f"channel || ' ' || {_CONNECTION}"
_LISTS = {"ids": BigInteger, "parts": SmallInteger, "passed_over": Text, "full": Text, "queues": Text}


@dataclass(frozen=True, slots=True)
class PendingEvent:
    """A recorded event that waits to be sent.

    `attempts` counts all attempts; `failed_attempts` those without a verdict that the service seems not to be to
    blame for: 1 makes the event suspect, each further one failed while the service took other events.
    """

    id: int
    channel: str
    name: str
    payload: str
    socket_id: str | None
    delivery: str
    connection: str | None
    except_user: str | None
    receipts: bool
    queue: str
    part: int
    attempts: int
    failed_attempts: int
    trace: str | None
    """The `traceparent` of the span in which it was recorded."""
    created_at: str

    def envelope(self) -> Envelope:
        """Return the envelope to send. The payload of a durable event contains its id."""
        delivery = Delivery(self.delivery)
        payload = with_event_id(self.payload, self.id) if delivery is Delivery.DURABLE else self.payload
        return Envelope(
            self.channel,
            self.name,
            payload,
            self.socket_id,
            delivery,
            self.queue,
            self.event_id(),
            self.connection,
            self.except_user,
            bool(self.receipts),
        )

    def event_id(self) -> str:
        """Return an id, the same for each attempt, and unique even if the database is emptied and starts over."""
        text_of_it = f"{self.created_at}\n{self.channel}\n{self.name}\n{self.payload}"
        return f"{self.id}-{hashlib.blake2b(text_of_it.encode(), digest_size=8).hexdigest()}"

    def recorded_at(self) -> float:
        """When it was recorded, in seconds since 1970."""
        if "-" in self.created_at:  # SQLite's text, in UTC
            return dt.datetime.fromisoformat(self.created_at).replace(tzinfo=dt.UTC).timestamp()
        return float(self.created_at)

    def after_failed_attempt(self) -> PendingEvent:
        """Return the event with one more failed attempt."""
        return replace(self, failed_attempts=self.failed_attempts + 1)


def place_of(channel: str, connection: str | None) -> str:
    """Return the name of what keeps one order within a queue: a channel on a connection."""
    return f"{channel} {connection or ''}"


def batch_key(envelopes: Sequence[Envelope]) -> str:
    """Return the idempotency key of a call, which depends only on its events."""
    return hashlib.sha256("\n".join(each.event_id or "" for each in envelopes).encode()).hexdigest()[:40]


def backoff_s(failures: int) -> float:
    """Return how long to wait after so many failures: 0.1 s at first, twice as long each time, at most 2 s."""
    return min(MAX_BACKOFF_S, _FIRST_BACKOFF_S * 2.0 ** min(max(failures - 1, 0), 10))


class PendingQueue:
    """Reads waiting events and writes their states. `default` is the default connection's name.

    All methods raise what the database raises.
    """

    def __init__(self, engine: AsyncEngine, tables: OutboxTables, default: str) -> None:
        self._default = default
        self._is_sqlite = engine.dialect.name == "sqlite"
        # On PostgreSQL a statement is its own transaction: one round trip instead of three.
        self._engine = outside_transactions(engine)
        table = engine.dialect.identifier_preparer.format_table(tables.recorded_events)
        # As text that does not depend on the session's time zone: it is part of the event's id.
        made = "created_at" if self._is_sqlite else "CAST(EXTRACT(EPOCH FROM created_at) AS VARCHAR(40))"
        # States are literals, not parameters, so that PostgreSQL uses its partial indexes.
        self._waiting = self._statement(
            f"SELECT {_COLUMNS}, {made} FROM {table} WHERE state = '{PENDING}' AND queue = :queue "  # noqa: S608
            f"AND {self._in('part', 'parts')} AND NOT {self._in(_PLACE, 'passed_over')} "
            f"AND NOT {self._in(_CONNECTION, 'full')} "
            f"AND {_PLACE} NOT IN (SELECT {_PLACE} FROM {table} WHERE state = '{PENDING}' AND available_at IS NOT NULL "
            "AND available_at > :now AND available_at <= :horizon AND queue = :queue) ORDER BY id LIMIT :at_most",
            now=UtcDateTime,
            horizon=UtcDateTime,
        )
        change = f"UPDATE {table} SET {{}} WHERE {self._in('id', 'ids')} AND state = '{PENDING}'"  # noqa: S608
        self._sent = self._statement(
            change.format(f"state = '{SENT}', sent_at = :now, attempts = attempts + 1, error = NULL"), now=UtcDateTime
        )
        self._failed = self._statement(
            change.format(f"state = '{FAILED}', attempts = attempts + 1, strikes = :strikes, error = :error")
        )
        self._held = self._statement(
            change.format("attempts = attempts + 1, strikes = :strikes, error = :error, available_at = :available_at"),
            available_at=UtcDateTime,
        )
        self._any_waiting = self._statement(
            f"SELECT 1 FROM {table} WHERE state = '{PENDING}' AND {self._in('queue', 'queues')} LIMIT 1"  # noqa: S608
        )

    async def waiting(
        self,
        queue: str,
        parts: Sequence[int],
        passed_over: Sequence[str],
        at_most: int,
        full: Collection[str | None] = (),
    ) -> list[PendingEvent]:
        """Return up to `at_most` events of these parts of `queue` that can be sent now, lowest ids first.

        Skips places (see `place_of`) that are held or `passed_over`, and connections that are `full`.
        """
        now = dt.datetime.now(dt.UTC)
        # No event is held beyond the horizon; one that seems to be dates from a clock that was turned back.
        values = {
            "queue": queue,
            "default": self._default,
            "parts": self._list(parts),
            "passed_over": self._list(passed_over),
            "full": self._list(connection or "" for connection in full),
            "now": now,
            "horizon": now + dt.timedelta(seconds=2 * MAX_BACKOFF_S),
            "at_most": at_most,
        }
        async with self._engine.connect() as connection:
            return [PendingEvent(*row) for row in await connection.execute(self._waiting, values)]

    async def has_waiting(self, queues: Sequence[str]) -> bool:
        """Return whether any event waits on `queues`, held or not, in any part."""
        async with self._engine.connect() as connection:
            found = await connection.scalar(self._any_waiting, {"queues": self._list(queues)})
            return found is not None

    async def mark_sent(self, ids: Sequence[int]) -> None:
        """Mark events as sent."""
        await self._write(self._sent, {"ids": self._list(ids), "now": dt.datetime.now(dt.UTC)})

    async def mark_failed(self, event: PendingEvent, error: str) -> None:
        """Mark an event as failed, for a person to look at."""
        values = {
            "ids": self._list([event.id]),
            "strikes": event.failed_attempts,
            "error": error[:_MAX_ERROR_CHARACTERS],
        }
        await self._write(self._failed, values)

    async def hold(self, events: Sequence[PendingEvent], failed_attempts: int, error: str) -> float:
        """Hold events, and so their places, for a back-off. Returns its length in seconds."""
        delay_s = backoff_s(max(event.attempts for event in events) + 1)
        values = {
            "ids": self._list([event.id for event in events]),
            "strikes": failed_attempts,
            "error": error[:_MAX_ERROR_CHARACTERS],
            "available_at": dt.datetime.now(dt.UTC) + dt.timedelta(seconds=delay_s),
        }
        await self._write(self._held, values)
        return delay_s

    async def _write(self, statement: Any, values: Mapping[str, object]) -> None:
        async with self._engine.begin() as connection:
            await connection.execute(statement, values)

    def _in(self, column: str, name: str) -> str:
        if self._is_sqlite:
            return f"{column} IN (SELECT value FROM json_each(:{name}))"  # noqa: S608 - names of ours
        return f"({column} = ANY(:{name}))"

    def _list(self, values: Iterable[object]) -> object:
        return msgspec.json.encode(list(values)).decode() if self._is_sqlite else list(values)

    def _statement(self, sql: str, **types: Any) -> Any:
        if not self._is_sqlite:
            types |= {name: ARRAY(kind) for name, kind in _LISTS.items() if f":{name}" in sql}
        return text(sql).bindparams(*(bindparam(name, type_=kind) for name, kind in types.items()))
