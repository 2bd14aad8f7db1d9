"""A worker's side of `recorded_events`: what waits, and what became of it.

Each call is one statement in a transaction of its own. What is written about an event holds only while it still
waits: a worker that has lost its part to another one cannot undo what that one did.
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
# One that names the default connection goes the same way as one that names none, in one order with it.
_OWN = "NULLIF(connection, :default)"
_COLUMNS = f"id, channel, name, payload, socket_id, delivery, {_OWN}, except_user, queue, part, attempts, strikes"
_CONNECTION = f"COALESCE({_OWN}, '')"
_PLACE = f"channel || ' ' || {_CONNECTION}"
_LISTS = {"ids": BigInteger, "parts": SmallInteger, "passed_over": Text, "full": Text, "queues": Text}


@dataclass(frozen=True, slots=True)
class PendingEvent:
    """A recorded event that waits to be sent. `strikes` counts how often it failed where others did not."""

    id: int
    channel: str
    name: str
    payload: str
    socket_id: str | None
    delivery: str
    connection: str | None
    except_user: str | None
    queue: str
    part: int
    attempts: int
    strikes: int
    created_at: str

    def envelope(self) -> Envelope:
        """The event as it travels; the payload of a durable one carries its id."""
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
        )

    def event_id(self) -> str:
        """The same each time this event is sent, and never that of another one: not even of a database that was
        emptied and counts from one again."""
        text_of_it = f"{self.created_at}\n{self.channel}\n{self.name}\n{self.payload}"
        return f"{self.id}-{hashlib.blake2b(text_of_it.encode(), digest_size=8).hexdigest()}"

    def struck(self) -> PendingEvent:
        """The same event, one strike on."""
        return replace(self, strikes=self.strikes + 1)


def place_of(channel: str, connection: str | None) -> str:
    """What keeps one order within a queue: a channel, as one connection has it."""
    return f"{channel} {connection or ''}"


def batch_key(envelopes: Sequence[Envelope]) -> str:
    """The idempotency key of one call: the same for the same events, and for no others."""
    return hashlib.sha256("\n".join(each.event_id or "" for each in envelopes).encode()).hexdigest()[:40]


def backoff_s(failures: int) -> float:
    """How long to leave what has failed so often: 0.1 s at first, twice as long each time, 2 s at most."""
    return min(MAX_BACKOFF_S, _FIRST_BACKOFF_S * 2.0 ** min(max(failures - 1, 0), 10))


class PendingQueue:
    """Reads and writes the states of recorded events; `default` is the default connection's name. All of it raises what
    the database raises."""

    def __init__(self, engine: AsyncEngine, tables: OutboxTables, default: str) -> None:
        self._default = default
        self._is_sqlite = engine.dialect.name == "sqlite"
        # On PostgreSQL a statement is its own transaction: one round trip instead of three.
        self._engine = outside_transactions(engine)
        table = engine.dialect.identifier_preparer.format_table(tables.recorded_events)
        # As text that no session's time zone changes: it is part of the event's id.
        made = "created_at" if self._is_sqlite else "CAST(EXTRACT(EPOCH FROM created_at) AS VARCHAR(40))"
        # States are written out, not bound: only so does PostgreSQL see that its partial indexes fit.
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
        """What can be sent now of these parts of `queue`, lowest ids first: all that waits, but for places (see
        `place_of`) that are held back or `passed_over`, and for connections that are `full`."""
        now = dt.datetime.now(dt.UTC)
        # Nothing is held for longer than the horizon; what seems to be is from a clock that was turned back.
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
        """Whether anything waits on `queues`, held back or not, whoever's part it is."""
        async with self._engine.connect() as connection:
            found = await connection.scalar(self._any_waiting, {"queues": self._list(queues)})
            return found is not None

    async def mark_sent(self, ids: Sequence[int]) -> None:
        """The service has taken these."""
        await self._write(self._sent, {"ids": self._list(ids), "now": dt.datetime.now(dt.UTC)})

    async def mark_failed(self, event: PendingEvent, error: str) -> None:
        """The service will never take this one: out of the way, for a person to look at."""
        values = {"ids": self._list([event.id]), "strikes": event.strikes, "error": error[:_MAX_ERROR_CHARACTERS]}
        await self._write(self._failed, values)

    async def hold(self, events: Sequence[PendingEvent], strikes: int, error: str) -> float:
        """Keep these, and with them their places, for a while; how long."""
        delay_s = backoff_s(max(event.attempts for event in events) + 1)
        values = {
            "ids": self._list([event.id for event in events]),
            "strikes": strikes,
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
