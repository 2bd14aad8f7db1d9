"""Deletes old sent events, and records up to which id, so that clients can tell a gap from a quiet channel."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

from sqlalchemy import delete, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncEngine

from smartlink.broadcasting.envelope import Delivery
from smartlink.broadcasting.outbox.tables import SENT, OutboxTables, in_utc

__all__ = ["RETENTION", "prune"]

RETENTION = dt.timedelta(days=7)
_ROWS_AT_ONCE = 1000


async def prune(engine: AsyncEngine, tables: OutboxTables, older_than: dt.timedelta = RETENTION) -> int:
    """Delete sent events older than `older_than`, in small transactions. Returns the number deleted."""
    events = tables.recorded_events
    before = dt.datetime.now(dt.UTC) - older_than
    page = select(events.c.id, in_utc(events.c.created_at), events.c.state, events.c.delivery).order_by(events.c.id)
    pruned, seen, is_done = 0, 0, False
    while not is_done:
        async with engine.connect() as connection:
            rows = (await connection.execute(page.where(events.c.id > seen).limit(_ROWS_AT_ONCE))).all()
        # Ids rise with time, except in overlapping transactions, so the first recent event ends the search.
        is_done = len(rows) < _ROWS_AT_ONCE or any(row.created_at >= before for row in rows)
        old = [row for row in rows if row.created_at < before and row.state == SENT]
        if old:
            durable = [row.id for row in old if row.delivery == Delivery.DURABLE]
            await _delete(engine, tables, [row.id for row in old], max(durable, default=0))
        pruned += len(old)
        seen = rows[-1].id if rows else seen
    return pruned


async def _delete(engine: AsyncEngine, tables: OutboxTables, ids: Sequence[int], pruned_through: int) -> None:
    watermark = tables.outbox_watermark
    insert = sqlite.insert if engine.dialect.name == "sqlite" else postgresql.insert
    advance = insert(watermark).values(id=1, pruned_through=pruned_through)
    advance = advance.on_conflict_do_update(
        index_elements=["id"],
        set_={"pruned_through": advance.excluded.pruned_through},
        where=watermark.c.pruned_through < advance.excluded.pruned_through,
    )
    async with engine.begin() as connection:
        if pruned_through:
            await connection.execute(advance)
        await connection.execute(delete(tables.recorded_events).where(tables.recorded_events.c.id.in_(ids)))
