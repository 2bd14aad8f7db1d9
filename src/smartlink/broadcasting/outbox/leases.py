"""Leases on the parts of queues, in the database and on its clock.

A queue has `PARTS` parts, each with its own lease; live workers divide them evenly. Holders renew their leases, which
expire by themselves if a holder dies. A holder counts the time from before its request, on its own monotonic clock, so
it stops before another may start. A lease that ends implausibly far in the future dates from a clock that was turned
back, and counts as expired.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

from sqlalchemy import (
    CTE,
    Float,
    Table,
    bindparam,
    cast,
    delete,
    extract,
    func,
    literal_column,
    or_,
    select,
    true,
    union_all,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.sql.elements import ColumnElement

from smartlink.broadcasting.envelope import DEFAULT_QUEUE
from smartlink.broadcasting.outbox.direct import fetched, written
from smartlink.broadcasting.outbox.partition import PARTS
from smartlink.broadcasting.outbox.pgbouncer import outside_transactions
from smartlink.broadcasting.outbox.tables import PENDING, OutboxTables

__all__ = ["LEASE_S", "Leases", "PartitionLeases", "database_clock"]

LEASE_S = 2.4
"""How long a crashed worker's leases keep its parts from others."""
_FORGOTTEN_AFTER_S = 3600.0
_MARGIN_S = 0.01
_ALL_QUEUES = "*"

Part = tuple[str, int]


def database_clock(engine: AsyncEngine) -> ColumnElement[float]:
    """Return an expression for the database's time, in seconds since 1970."""
    if engine.dialect.name == "sqlite":
        return literal_column("((julianday('now') - 2440587.5) * 86400.0)", Float)
    return cast(extract("epoch", func.clock_timestamp()), Float(53))


def _seconds(value: float) -> ColumnElement[float]:
    """A number in the statement itself. As a parameter it would be named after the clock's text, which older versions
    of SQLAlchemy escape in one place and not in another.
    """
    return literal_column(repr(float(value)), Float)


class Leases:
    """Named leases of `lease_s` seconds, for one holder."""

    def __init__(self, engine: AsyncEngine, table: Table, holder: str, lease_s: float) -> None:
        self._engine = outside_transactions(engine)
        self._table = table
        self._holder = holder
        self._lease_s = lease_s
        self._is_ours = table.c.holder == holder
        self._now = database_clock(engine)
        self._insert = sqlite.insert if engine.dialect.name == "sqlite" else postgresql.insert
        expires_at = table.c.expires_at
        self._has_run_out = or_(expires_at <= self._now, expires_at > self._now + _seconds(lease_s + 1))
        self.renewal = (
            update(table).where(self._is_ours, ~self._has_run_out).values(expires_at=self._now + _seconds(lease_s))
        )
        """A statement that renews the leases held."""
        expires_in = (expires_at - self._now).label("expires_in")
        is_held = ~self._has_run_out
        self.ours = select(literal_column("'ours'").label("kind"), table.c.name, expires_in).where(
            self._is_ours, is_held
        )
        """A query for the leases held: their names, and in how many seconds they expire."""
        self.of_others = select(literal_column("'others'"), table.c.name, expires_in).where(~self._is_ours, is_held)
        """The same for leases that cannot be taken now."""

    async def take(self, names: Iterable[str]) -> set[str]:
        """Take those of `names` that are free. Returns them."""
        # Sorted, so that two workers that take leases at the same time do not deadlock.
        rows = [
            {"name": name, "holder": self._holder, "expires_at": self._now + _seconds(self._lease_s)}
            for name in sorted(names)
        ]
        if not rows:
            return set()
        insert = self._insert(self._table).values(rows)
        take = insert.on_conflict_do_update(
            index_elements=["name"],
            set_={"holder": insert.excluded.holder, "expires_at": insert.excluded.expires_at},
            where=self._has_run_out,
        ).returning(self._table.c.name)
        async with self._engine.begin() as connection:
            return set((await connection.execute(take)).scalars())

    async def release(self, names: Collection[str] | None = None) -> None:
        """Release `names`, or all leases held."""
        which = true() if names is None else self._table.c.name.in_(names)
        async with self._engine.begin() as connection:
            await connection.execute(update(self._table).where(self._is_ours, which).values(expires_at=0))


class PartitionLeases:
    """One worker's leases. `queues` are in order of priority; None means all queues, with equal priority."""

    def __init__(
        self, engine: AsyncEngine, tables: OutboxTables, queues: Sequence[str] | None, lease_s: float = LEASE_S
    ) -> None:
        self.worker_id = secrets.token_hex(8)
        self.lease_s = lease_s
        self.held: set[Part] = set()
        """The parts we hold, until `valid_until`."""
        self.surplus: set[Part] = set()
        """Parts that another worker should have: to be released when nothing of them is under way."""
        self.queues: tuple[str, ...] = tuple(queues or (DEFAULT_QUEUE,))
        self.valid_until = 0.0
        self.is_empty = False
        """Whether no event was waiting at the last beat."""
        self.look_again_at = float("inf")
        """When the next lease of another worker expires unless it is renewed, on the monotonic clock."""
        self.on_loss: Callable[[Collection[Part]], None] = lambda _: None
        """Called synchronously with parts that are lost or to be released."""
        self.losses = 0
        """The number of those calls: if it changes during a read, the result may belong to another worker."""
        self._changing = asyncio.Lock()
        self._given = None if queues is None else tuple(queues)
        self._engine = outside_transactions(engine)
        self._tables = tables
        self._leases = Leases(engine, tables.outbox_lease, self.worker_id, lease_s)
        self._now = database_clock(engine)
        self._insert = sqlite.insert if engine.dialect.name == "sqlite" else postgresql.insert
        self._is_known = False
        self._sign_of_life = self._life_statement()
        self._forget = delete(tables.outbox_workers).where(
            tables.outbox_workers.c.seen_at < self._now - _seconds(_FORGOTTEN_AFTER_S)
        )
        workers = tables.outbox_workers.c
        # As for leases, a time in the future dates from a clock that was turned back.
        alive = select(literal_column("'worker'"), workers.queues, literal_column("0.0")).where(
            workers.seen_at > self._now - _seconds(lease_s), workers.seen_at < self._now + _seconds(1)
        )
        waiting = _queues_with_waiting_events(tables.recorded_events)
        found = select(literal_column("'queue'"), waiting.c.name, literal_column("0.0")).where(
            waiting.c.name.is_not(None)
        )
        self._state = union_all(self._leases.ours, self._leases.of_others, alive, found)

    def _life_statement(self) -> Any:
        changing: dict[str, Any] = {"seen_at": self._now, "sent": bindparam("sent"), "failed": bindparam("failed")}
        row = self._insert(self._tables.outbox_workers).values(
            id=self.worker_id,
            host=socket.gethostname()[:255],
            pid=os.getpid(),
            queues=",".join(self._given or (_ALL_QUEUES,)),
            started_at=self._now,
            **changing,
        )
        return row.on_conflict_do_update(index_elements=["id"], set_=changing)

    def is_valid(self) -> bool:
        """Return whether the parts in `held` are still ours."""
        return time.monotonic() < self.valid_until

    def has(self, part: Part) -> bool:
        """Return whether `part` is held and not to be released."""
        return part in self.held and part not in self.surplus

    def lapse(self) -> None:
        """Count all leases as lost."""
        lost = self.held | self.surplus
        self.held = set()
        self.surplus = set()
        self.valid_until = 0.0
        self._lose(lost)

    async def beat(self, sent: int, failed: int) -> None:
        """Send a heartbeat, renew our leases, and take or offer parts to divide them evenly.

        Raises what the database raises; the leases then expire, unless a later beat is in time.
        """
        async with self._changing:
            await self._beat(sent, failed)

    async def _beat(self, sent: int, failed: int) -> None:
        asked_at = time.monotonic()
        beat = (self._leases.renewal, self._sign_of_life, *(() if self._is_known else (self._forget,)))
        async with self._engine.connect() as connection:
            await written(connection, beat, sent=sent, failed=failed)
            state = _by_kind(await fetched(connection, self._state))
            await connection.commit()
        self._is_known = True
        self._note_queues([name for name, _ in state["queue"]])
        renewed = {part for name, _ in state["ours"] if (part := _part(name)) is not None}
        workers = [queues.split(",") for queues, _ in state["worker"]]
        taken = {name: float(seconds) for name, seconds in state["others"]}
        # A part whose lease expired may have been another worker's since: it starts over when it is taken again.
        before, self.held = self.held, renewed & self.held if self.is_valid() else set()
        self._lose(before - self.held)
        stray = renewed - self.held
        self.valid_until = asked_at + self.lease_s
        expiries = [seconds for name, seconds in taken.items() if _part(name) is not None]
        self.look_again_at = time.monotonic() + min(expiries, default=float("inf")) + _MARGIN_S
        wanted: set[Part] = set(stray)
        surplus: set[Part] = set()
        for queue in self.queues:
            fair = -(-PARTS // max(1, sum(queue in served or _ALL_QUEUES in served for served in workers)))
            ours = sorted(part for part in self.held | stray if part[0] == queue)
            free = [(queue, number) for number in range(PARTS) if _name((queue, number)) not in taken]
            free = [part for part in free if part not in self.held and part not in stray]
            wanted.update(free[: max(0, fair - len(ours))])
            surplus.update(part for part in ours[fair:] if part in self.held)
        fresh_surplus, self.surplus = surplus - self.surplus, surplus
        self._lose(fresh_surplus)
        fresh = wanted - stray
        if fresh:
            names = await self._leases.take([_name(part) for part in fresh])
            fresh = {part for part in map(_part, names) if part is not None}
        if self.is_valid():
            self.held |= fresh | stray
        # Otherwise this took too long, and the next beat finds out what we hold.

    async def release(self, parts: Collection[Part] | None = None) -> None:
        """Release `parts`; or all parts, and remove us from the list of workers."""
        if parts is not None:
            self.held.difference_update(parts)
            self.surplus.difference_update(parts)
            self._lose(parts)
            await self._leases.release([_name(part) for part in parts])
            return
        self.lapse()
        # A running beat would take them again.
        async with self._changing:
            self.lapse()
            if not self._is_known:
                return
            await self._leases.release()
            workers = self._tables.outbox_workers
            async with self._engine.begin() as connection:
                await connection.execute(delete(workers).where(workers.c.id == self.worker_id))
            self._is_known = False

    def _lose(self, parts: Collection[Part]) -> None:
        if parts:
            self.losses += 1
            self.on_loss(parts)

    def _note_queues(self, waiting: Sequence[str]) -> None:
        if self._given is None:
            ours = {queue for queue, _ in self.held}
            self.queues = (DEFAULT_QUEUE, *sorted((ours | set(waiting)) - {DEFAULT_QUEUE}))
        self.is_empty = not set(waiting) & set(self.queues)


def _queues_with_waiting_events(recorded_events: Table) -> CTE:
    """Return the queues' names, and None as the last one.

    Skips from one queue's name to the next in the index, which is fast as there are few queues.
    """
    events = recorded_events.c
    waiting = select(events.queue).where(events.state == literal_column(f"'{PENDING}'")).order_by(events.queue).limit(1)
    queues = select(waiting.scalar_subquery().label("name")).cte("waiting_queues", recursive=True)
    following = waiting.where(events.queue > queues.c.name).scalar_subquery().correlate(queues)
    return queues.union_all(select(following).where(queues.c.name.is_not(None)))


def _by_kind(rows: Iterable[Sequence[Any]]) -> dict[str, list[tuple[str, float]]]:
    found: dict[str, list[tuple[str, float]]] = defaultdict(list)
    for kind, name, seconds in rows:
        found[kind].append((name, seconds))
    return found


def grouped(parts: Iterable[Part]) -> dict[str, list[int]]:
    """Return the numbers of `parts` by queue."""
    numbers: dict[str, list[int]] = defaultdict(list)
    for queue, number in parts:
        numbers[queue].append(number)
    return numbers


def _name(part: Part) -> str:
    return f"{part[0]}:{part[1]}"


def _part(name: str) -> Part | None:
    queue, separator, number = name.rpartition(":")
    return (queue, int(number)) if separator and number.isdigit() else None
