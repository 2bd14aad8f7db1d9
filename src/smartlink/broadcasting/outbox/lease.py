"""One relay at a time: a lease in the database, on the database's clock.

Whoever holds the row works; it is renewed while they do and runs out by itself when they die. A holder counts its
time from before it asked, on its own monotonic clock, so it stops before anybody else may start. A lease further
in the future than one can be is left over from a clock that was turned back, and counts as run out.
"""

from __future__ import annotations

import secrets
import time

from sqlalchemy import Float, cast, extract, func, literal_column, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.sql.elements import ColumnElement

from smartlink.broadcasting.outbox.tables import OutboxTables

__all__ = ["Lease"]

_NAME = "relay"


class Lease:
    """The right to relay, for `lease_s` seconds at a time."""

    def __init__(self, engine: AsyncEngine, tables: OutboxTables, *, lease_s: float = 8.0) -> None:
        self.term = 0
        """Rises each time the lease is taken anew, not when it is renewed."""
        self._engine = engine
        self._table = tables.outbox_lease
        self._lease_s = lease_s
        self._holder = secrets.token_hex(8)
        self._held_until = 0.0
        self._asked_at = float("-inf")
        is_sqlite = engine.dialect.name == "sqlite"
        self._insert = (sqlite if is_sqlite else postgresql).insert
        self._now = _sqlite_epoch() if is_sqlite else _postgresql_epoch()

    async def hold(self) -> bool:
        """Whether this relay may work now, for at least three quarters of the lease. Takes or renews it when due."""
        now = time.monotonic()
        was_held = self._held_until > now
        if now - self._asked_at < self._lease_s / (8 if was_held else 20):
            return was_held
        if not was_held and await self._is_held_by_another():
            self._asked_at = now
            return False
        taken = await self._take()
        self._asked_at = now
        self._held_until = now + self._lease_s if taken else 0.0
        if taken and not was_held:
            self.term += 1
        return taken

    async def release(self) -> None:
        """Let the next relay start at once."""
        was_held = self._held_until > 0
        self._held_until, self._asked_at = 0.0, float("-inf")
        if was_held:
            async with self._engine.begin() as connection:
                await connection.execute(
                    update(self._table)
                    .where(self._table.c.name == _NAME, self._table.c.holder == self._holder)
                    .values(expires_at=0)
                )

    def _has_run_out(self) -> ColumnElement[bool]:
        expires_at = self._table.c.expires_at
        return or_(expires_at <= self._now, expires_at > self._now + self._lease_s + 1)

    async def _is_held_by_another(self) -> bool:
        # Read first: on SQLite even an update that finds nothing waits for the writer.
        held = select(self._table.c.name).where(
            self._table.c.name == _NAME, self._table.c.holder != self._holder, ~self._has_run_out()
        )
        async with self._engine.connect() as connection:
            return (await connection.scalar(held)) is not None

    async def _take(self) -> bool:
        values = {"holder": self._holder, "expires_at": self._now + self._lease_s}
        take = (
            self._insert(self._table)
            .values(name=_NAME, **values)
            .on_conflict_do_update(
                index_elements=["name"],
                set_=values,
                where=or_(self._table.c.holder == self._holder, self._has_run_out()),
            )
            .returning(self._table.c.holder)
        )
        async with self._engine.begin() as connection:
            return (await connection.execute(take)).scalar() == self._holder


def _sqlite_epoch() -> ColumnElement[float]:
    return literal_column("((julianday('now') - 2440587.5) * 86400.0)", Float)


def _postgresql_epoch() -> ColumnElement[float]:
    return cast(extract("epoch", func.clock_timestamp()), Float(53))
