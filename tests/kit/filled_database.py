"""A portal's database with very many rows, and the queries of its endpoints."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from typing import Any

import psycopg
from sqlalchemy import event

from kit.portal import World

__all__ = ["asked", "fill", "plan"]

_NOW = "CURRENT_TIMESTAMP"
_ROWS = {
    "users": "INSERT INTO users (name, email, password, is_admin, created_at, updated_at) "
    f"SELECT 'User ' || n, 'user' || n || '@example.org', 'x', false, {_NOW}, {_NOW} FROM generate_series(1, :n) n",
    # One in a thousand is online. From about one in two hundred, PostgreSQL rightly reads all users at once instead.
    "user_presence": "INSERT INTO user_presence (user_id, is_online, last_seen, created_at, updated_at) "
    f"SELECT id, id % 1000 = 0, {_NOW}, {_NOW}, {_NOW} FROM users",
    # Four in ten are general; the rest are between ten thousand pairs, a tenth of them to and from `a`.
    "chat_messages": "INSERT INTO chat_messages (user_id, recipient_id, message, is_read, created_at, updated_at) "
    "SELECT CASE WHEN n % 20 = 1 THEN :a ELSE :first + n % 10000 END, CASE WHEN n % 10 < 4 THEN NULL "
    "WHEN n % 20 = 15 THEN :a ELSE :first + (n * 7 + 1) % 10000 END, "
    f"'word' || n % 5000 || ' hello', n % 50 <> 15, {_NOW}, {_NOW} FROM generate_series(1, :n) n",
    "notifications": "INSERT INTO notifications (user_id, type, data, read_at, created_at) SELECT "
    "CASE WHEN n % 100 = 1 THEN :a ELSE :first + n % 10000 END, 'deposit', "
    """'{"transaction_id": 1, "amount": "1.00", "currency": "EUR", "balance": "1.00"}', """
    f"CASE WHEN n % 500 = 1 THEN NULL ELSE {_NOW} END, {_NOW} FROM generate_series(1, :n) n",
    "campaigns": "INSERT INTO campaigns (user_id, name, status, budget, version, created_at, updated_at) SELECT "
    "CASE WHEN n % 100 = 1 THEN :a ELSE :first + n % 10000 END, 'C', CASE WHEN n % 100 < 2 THEN 'active' "
    f"ELSE 'draft' END, 100, 1, {_NOW}, {_NOW} FROM generate_series(1, :n) n",
    "campaign_activities": "INSERT INTO campaign_activities (campaign_id, user_id, action, changes, created_at) "
    f"SELECT c.id, c.user_id, 'x', '{{}}', {_NOW} FROM campaigns c",
    "wallets": "INSERT INTO wallets (user_id, currency, balance, version, created_at, updated_at) "
    f"SELECT id, 'EUR', 0, 100, {_NOW}, {_NOW} FROM users WHERE id <= :first + 10000",
    "wallet_transactions": "INSERT INTO wallet_transactions "
    "(wallet_id, type, amount, balance_after, version, created_at) SELECT w.id, 'deposit', 1, 1, n, "
    f"{_NOW} FROM wallets w, generate_series(1, GREATEST(1, :n / 10000)) n",
    "recorded_events": "INSERT INTO recorded_events (channel, name, payload, delivery, state, error, created_at, sent_at) "
    "SELECT CASE WHEN n % 100 = 1 THEN 'private-user.' || :a WHEN n % 10 = 2 THEN 'chat' ELSE 'private-user.' || "
    "(:first + n % 10000) END, 'E', '{}', 'durable', CASE WHEN n % 1000 = 3 THEN 'failed' ELSE 'sent' END, 'refused', "
    f"{_NOW}, {_NOW} FROM generate_series(1, :n) n",
    "audit_entries": "INSERT INTO audit_entries (admin_id, action, target, detail, created_at) "
    f"SELECT :a, 'x', 'y', '{{}}', {_NOW} FROM generate_series(1, :n) n",
    "personal_access_tokens": "INSERT INTO personal_access_tokens "
    "(user_id, name, token, abilities, created_at, updated_at) "
    f"SELECT :first + n % 10000, 'x', 't' || n, '[]', {_NOW}, {_NOW} FROM generate_series(1, :n) n",
}
BIG = tuple(_ROWS)
"""The tables that are filled."""


def fill(url: str, a: int, rows: int, *, only: tuple[str, ...] = BIG) -> None:
    """Add about `rows` rows to each big table of the PostgreSQL database at `url`; the user `a` has many of them."""
    first = 0
    with closing(psycopg.connect(url.replace("+asyncpg", ""), autocommit=True)) as connection:
        for table in _ROWS:
            values = {"n": max(rows, 10_001) if table == "users" else rows, "a": a, "first": first}
            if table == "users" or table in only:
                connection.execute(re.sub(r":(n|a|first)\b", lambda found: str(values[found[1]]), _ROWS[table]))  # noqa: B023
            if table == "users":
                row = connection.execute("SELECT min(id) FROM users WHERE email LIKE '%@example.org'").fetchone()
                assert row is not None
                first = row[0]
        connection.execute("VACUUM ANALYZE")


@asynccontextmanager
async def asked(world: World) -> AsyncIterator[list[tuple[str, Any]]]:
    """Note each SELECT that the portal sends, with its parameters."""
    noted: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, _many: bool) -> None:
        if statement.lstrip().upper().startswith(("SELECT", "WITH")):
            noted.append((statement, parameters))

    engine = world.portal.database.engine.sync_engine
    event.listen(engine, "before_cursor_execute", note)
    try:
        yield noted
    finally:
        event.remove(engine, "before_cursor_execute", note)


async def plan(world: World, statement: str, parameters: Any) -> str:
    """How PostgreSQL would answer."""
    async with world.portal.database.engine.connect() as connection:
        rows = (await connection.exec_driver_sql(f"EXPLAIN {statement}", parameters)).all()
    return "\n".join(str(row[0]) for row in rows)
