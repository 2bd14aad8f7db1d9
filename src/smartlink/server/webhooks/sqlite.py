"""The webhook queue in an SQLite file: for one machine, surviving restarts and `kill -9`.

One thread owns the connection; each call is one transaction, on disk when it returns. Times are wall-clock times, since
they outlive the process; one far in the future, as after the clock was set back, counts as past.
"""

from __future__ import annotations

import asyncio
import secrets
import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import msgspec

from smartlink.server.webhooks.queue import (
    MAX_FAILED,
    MAX_WAITING,
    Address,
    Batch,
    Check,
    FailedBatch,
    QueuedEvent,
    QueueUnavailable,
    Subject,
    WebhookReport,
)

__all__ = ["SqliteQueue"]

T = TypeVar("T")
BUSY_S = 5.0
MAX_LOG_BYTES = 16 * 1024 * 1024
"""The write-ahead log is truncated to this size after a checkpoint."""
FAR_S = 600.0
"""No due time, lease or pause is further ahead than this."""
TICK_S = 0.000_001

_TABLES = """
CREATE TABLE IF NOT EXISTS subjects (
    app_id TEXT NOT NULL, channel TEXT NOT NULL, user_id TEXT NOT NULL,
    is_announced INTEGER NOT NULL, version TEXT NOT NULL, due REAL,
    PRIMARY KEY (app_id, channel, user_id)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS subjects_due ON subjects (due) WHERE due IS NOT NULL;
CREATE TABLE IF NOT EXISTS seen (
    app_id TEXT NOT NULL, channel TEXT NOT NULL, user_id TEXT NOT NULL, until REAL NOT NULL,
    PRIMARY KEY (app_id, channel, user_id)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS addresses (
    id INTEGER PRIMARY KEY, app_id TEXT NOT NULL, url TEXT NOT NULL, waiting INTEGER NOT NULL DEFAULT 0,
    free_at REAL NOT NULL DEFAULT 0, lease TEXT NOT NULL DEFAULT '', attempts INTEGER NOT NULL DEFAULT 0,
    failing_since REAL, UNIQUE (app_id, url));
CREATE INDEX IF NOT EXISTS addresses_ready ON addresses (free_at) WHERE waiting > 0;
CREATE TABLE IF NOT EXISTS waiting (
    id INTEGER PRIMARY KEY AUTOINCREMENT, address_id INTEGER NOT NULL, at REAL NOT NULL, since REAL NOT NULL,
    event TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS waiting_by_address ON waiting (address_id, id);
CREATE TABLE IF NOT EXISTS failed (
    id INTEGER PRIMARY KEY AUTOINCREMENT, app_id TEXT NOT NULL, url TEXT NOT NULL, failed_at REAL NOT NULL,
    reason TEXT NOT NULL, entries TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS failed_by_address ON failed (app_id, url, id);
"""

_OF_USERS = " users"
_entries = msgspec.json.Decoder(tuple[QueuedEvent, ...])


class SqliteQueue:
    """A `WebhookQueue` in the file at `path`, created at the start with its folder."""

    def __init__(self, path: Path, now: Callable[[], float] = time.time) -> None:
        self._path = path
        self._now = now
        self._thread: ThreadPoolExecutor | None = None
        self._connection: sqlite3.Connection | None = None

    async def start(self) -> None:
        self._thread = ThreadPoolExecutor(1, "webhook-queue")
        try:
            await self._in_thread(self._open)
        except QueueUnavailable:
            await self.stop()
            raise

    async def stop(self) -> None:
        thread, self._thread = self._thread, None
        if thread is None:
            return
        # In the thread, so that it follows an opening in progress.
        await asyncio.get_running_loop().run_in_executor(thread, self._close)
        thread.shutdown(wait=False)

    async def record(self, reports: Sequence[WebhookReport]) -> int:
        # Reports of one call become due in order.
        def work(db: sqlite3.Connection) -> int:
            now = self._now()
            return sum(self._record(db, report, now + n * TICK_S) for n, report in enumerate(reports))

        return await self._transaction(work)

    async def recheck(self, in_s: float) -> None:
        def work(db: sqlite3.Connection) -> None:
            db.execute("UPDATE subjects SET due = ? + (user_id = '') * ?", (self._now() + in_s, TICK_S))
            db.execute("DELETE FROM seen WHERE until < ?", (self._now(),))

        await self._transaction(work)

    async def claim(self, limit: int, lease_s: float, *, of_users: bool) -> Sequence[Check]:
        def work(db: sqlite3.Connection) -> list[Check]:
            now = self._now()
            rows = db.execute(
                "SELECT app_id, channel, user_id, version, is_announced FROM subjects"
                " WHERE (due <= ? OR due > ?) AND (user_id != '') = ? ORDER BY due LIMIT ?",
                (now, now + FAR_S, of_users, limit),
            ).fetchall()
            key = "app_id = ? AND channel = ? AND user_id = ?"
            db.executemany(f"UPDATE subjects SET due = ? WHERE {key}", [(now + lease_s, *row[:3]) for row in rows])  # noqa: S608 — a constant
            return [Check(Subject(*row[:3]), row[3], bool(row[4])) for row in rows]

        return await self._transaction(work)

    async def settle(self, check: Check, *, is_announced: bool, report: WebhookReport | None) -> bool:
        def work(db: sqlite3.Connection) -> bool:
            subject = check.subject
            key = (subject.app_id, subject.channel, subject.user_id)
            where = "WHERE app_id = ? AND channel = ? AND user_id = ?"
            if is_announced:
                change = f"UPDATE subjects SET is_announced = 1, due = NULL, version = hex(randomblob(8)) {where}"  # noqa: S608 — constants
            else:
                change = f"DELETE FROM subjects {where}"  # noqa: S608 — constants
            if not db.execute(f"{change} AND version = ?", (*key, check.version)).rowcount:
                db.execute(f"UPDATE subjects SET due = ? {where}", (self._now(), *key))  # noqa: S608 — constants
                return False
            if report is not None:
                self._append(db, report)
            return True

        return await self._transaction(work)

    async def ready(self, limit: int) -> Sequence[Address]:
        def work(db: sqlite3.Connection) -> list[Address]:
            now = self._now()
            rows = db.execute(
                "SELECT app_id, url FROM addresses WHERE waiting > 0 AND (free_at <= ? OR free_at > ?) LIMIT ?",
                (now, now + FAR_S, limit),
            )
            return [_address(*row) for row in rows]

        return await self._transaction(work)

    async def take(self, address: Address, limit: int, lease_s: float) -> Batch | None:
        def work(db: sqlite3.Connection) -> Batch | None:
            now = self._now()
            row = db.execute(
                "SELECT id, attempts FROM addresses"
                " WHERE app_id = ? AND url = ? AND waiting > 0 AND (free_at <= ? OR free_at > ?)",
                (*_key(address), now, now + FAR_S),
            ).fetchone()
            if row is None:
                return None
            lease = secrets.token_hex(8)
            db.execute("UPDATE addresses SET free_at = ?, lease = ? WHERE id = ?", (now + lease_s, lease, row[0]))
            entries = db.execute(
                "SELECT at, since, event FROM waiting WHERE address_id = ? ORDER BY id LIMIT ?", (row[0], limit)
            )
            return Batch(address, lease, tuple(QueuedEvent(*entry) for entry in entries), row[1])

        return await self._transaction(work)

    async def done(self, batch: Batch) -> None:
        def work(db: sqlite3.Connection) -> None:
            if (address_id := self._leased(db, batch)) is not None:
                self._pop(db, address_id, len(batch.entries))
                self._free(db, address_id)

        await self._transaction(work)

    async def defer(self, batch: Batch, again_in_s: float, give_up_after_s: float, reason: str) -> int:
        def work(db: sqlite3.Connection) -> int:
            address_id = self._leased(db, batch)
            if address_id is None:
                return 0
            now = self._now()
            db.execute(
                "UPDATE addresses SET lease = '', attempts = attempts + 1, free_at = ?,"
                " failing_since = coalesce(failing_since, ?) WHERE id = ?",
                (now + again_in_s, now, address_id),
            )
            (since,) = db.execute("SELECT failing_since FROM addresses WHERE id = ?", (address_id,)).fetchone()
            if now - since < give_up_after_s:
                return 0
            # Replayed events come last, with a younger time: only the head can have expired.
            (first_young,) = db.execute(
                "SELECT min(id) FROM waiting WHERE address_id = ? AND since > ?", (address_id, now - give_up_after_s)
            ).fetchone()
            expired = db.execute(
                "SELECT at, since, event FROM waiting WHERE address_id = ? AND (? IS NULL OR id < ?) ORDER BY id",
                (address_id, first_young, first_young),
            ).fetchall()
            size = max(1, len(batch.entries))
            for start in range(0, len(expired), size):
                part = [QueuedEvent(*row) for row in expired[start : start + size]]
                self._keep_failed(db, batch.address, part, reason)
            self._pop(db, address_id, len(expired))
            return len(expired)

        return await self._transaction(work)

    async def give_up(self, batch: Batch, reason: str) -> int:
        def work(db: sqlite3.Connection) -> int:
            address_id = self._leased(db, batch)
            if address_id is None:
                return 0
            self._keep_failed(db, batch.address, batch.entries, reason)
            self._pop(db, address_id, len(batch.entries))
            self._free(db, address_id)
            return len(batch.entries)

        return await self._transaction(work)

    async def failed(self, limit: int = 1_000) -> Sequence[FailedBatch]:
        def work(db: sqlite3.Connection) -> list[FailedBatch]:
            rows = db.execute(
                "SELECT id, app_id, url, failed_at, reason, entries FROM failed ORDER BY id DESC LIMIT ?", (limit,)
            )
            return [_failed_batch(row) for row in rows]

        return await self._transaction(work)

    async def retry(self, batch_id: int | None) -> int:
        def work(db: sqlite3.Connection) -> int:
            now = self._now()
            rows = db.execute(
                "SELECT id, app_id, url, failed_at, reason, entries FROM failed WHERE ? IS NULL OR id = ? ORDER BY id",
                (batch_id, batch_id),
            ).fetchall()
            for row in rows:
                batch = _failed_batch(row)
                address_id = self._address(db, batch.address)
                self._push(db, address_id, ((entry.at, now, entry.event) for entry in batch.entries))
                db.execute("UPDATE addresses SET free_at = ? WHERE id = ? AND lease = ''", (now, address_id))
                db.execute("DELETE FROM failed WHERE id = ?", (batch.id,))
            return len(rows)

        return await self._transaction(work)

    async def forget(self, batch_id: int | None) -> int:
        return await self._transaction(
            lambda db: db.execute("DELETE FROM failed WHERE ? IS NULL OR id = ?", (batch_id, batch_id)).rowcount
        )

    # In the thread, within a transaction

    def _record(self, db: sqlite3.Connection, report: WebhookReport, now: float) -> int:
        subject = report.subject
        key = (subject.app_id, subject.channel, subject.user_id)
        if report.kind == "event":
            if report.once_for_s:
                changed = db.execute(
                    "INSERT INTO seen VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET until = excluded.until"
                    " WHERE seen.until <= ? OR seen.until > ?",
                    (*key, now + report.once_for_s, now, now + FAR_S),
                )
                if not changed.rowcount:
                    return 0
            return self._append(db, report)
        where = "WHERE app_id = ? AND channel = ? AND user_id = ?"
        db.execute(
            "INSERT INTO subjects VALUES (?, ?, ?, 0, hex(randomblob(8)), NULL)"
            " ON CONFLICT DO UPDATE SET version = excluded.version",
            key,
        )
        due = now + (report.check_in_s or 0.0)
        if report.kind == "leave":
            db.execute(f"UPDATE subjects SET due = ? {where}", (due, *key))  # noqa: S608 — constants
            return 0
        if report.check_in_s is not None:
            db.execute(f"UPDATE subjects SET due = ? {where} AND due IS NULL", (due, *key))  # noqa: S608 — constants
        changed = db.execute(f"UPDATE subjects SET is_announced = 1 {where} AND is_announced = 0", key)  # noqa: S608 — constants
        return self._append(db, report) if changed.rowcount else 0

    def _append(self, db: sqlite3.Connection, report: WebhookReport) -> int:
        dropped = 0
        for address in report.addresses:
            address_id = self._address(db, address)
            (waiting,) = db.execute("SELECT waiting FROM addresses WHERE id = ?", (address_id,)).fetchone()
            if waiting >= MAX_WAITING:
                dropped += 1
            else:
                self._push(db, address_id, [(report.at, self._now(), report.event)])
        return dropped

    def _address(self, db: sqlite3.Connection, address: Address) -> int:
        key = _key(address)
        db.execute("INSERT INTO addresses (app_id, url) VALUES (?, ?) ON CONFLICT DO NOTHING", key)
        row: tuple[int] = db.execute("SELECT id FROM addresses WHERE app_id = ? AND url = ?", key).fetchone()
        return row[0]

    def _push(self, db: sqlite3.Connection, address_id: int, rows: Iterable[tuple[float, float, str]]) -> None:
        values = [(address_id, *row) for row in rows]
        db.executemany("INSERT INTO waiting (address_id, at, since, event) VALUES (?, ?, ?, ?)", values)
        db.execute("UPDATE addresses SET waiting = waiting + ? WHERE id = ?", (len(values), address_id))

    def _pop(self, db: sqlite3.Connection, address_id: int, count: int) -> None:
        db.execute(
            "DELETE FROM waiting WHERE id IN (SELECT id FROM waiting WHERE address_id = ? ORDER BY id LIMIT ?)",
            (address_id, count),
        )
        db.execute("UPDATE addresses SET waiting = waiting - ? WHERE id = ?", (count, address_id))

    def _leased(self, db: sqlite3.Connection, batch: Batch) -> int | None:
        row: tuple[int] | None = db.execute(
            "SELECT id FROM addresses WHERE app_id = ? AND url = ? AND lease = ?",
            (*_key(batch.address), batch.lease),
        ).fetchone()
        return None if row is None else row[0]

    def _free(self, db: sqlite3.Connection, address_id: int) -> None:
        db.execute(
            "UPDATE addresses SET lease = '', attempts = 0, failing_since = NULL, free_at = 0 WHERE id = ?",
            (address_id,),
        )
        db.execute("DELETE FROM addresses WHERE id = ? AND waiting = 0", (address_id,))

    def _keep_failed(
        self, db: sqlite3.Connection, address: Address, entries: Sequence[QueuedEvent], reason: str
    ) -> None:
        key = _key(address)
        db.execute(
            "INSERT INTO failed (app_id, url, failed_at, reason, entries) VALUES (?, ?, ?, ?, ?)",
            (*key, self._now(), reason, msgspec.json.encode(entries).decode()),
        )
        db.execute(
            "DELETE FROM failed WHERE id IN (SELECT id FROM failed WHERE app_id = ? AND url = ?"
            " ORDER BY id DESC LIMIT -1 OFFSET ?)",
            (*key, MAX_FAILED),
        )

    # The thread

    def _open(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        # Events may hold what clients send each other: readable by this user only.
        self._path.touch(0o600)
        db = sqlite3.connect(self._path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
        self._connection = db
        db.execute("PRAGMA journal_mode = WAL")
        db.execute(f"PRAGMA journal_size_limit = {MAX_LOG_BYTES}")
        db.execute("PRAGMA synchronous = FULL")
        db.executescript(f"BEGIN IMMEDIATE; {_TABLES} COMMIT;")

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    async def _transaction(self, work: Callable[[sqlite3.Connection], T]) -> T:
        def run() -> T:
            db = self._connection
            if db is None:
                raise QueueUnavailable("The webhook queue is not open")
            db.execute("BEGIN IMMEDIATE")
            try:
                result = work(db)
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise
            return result

        return await self._in_thread(run)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        if self._thread is None:
            raise QueueUnavailable("The webhook queue is not open")
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except (sqlite3.Error, OSError) as error:
            raise QueueUnavailable(f"The webhook queue {self._path} is unavailable: {error}") from None


def _key(address: Address) -> tuple[str, str]:
    """An address in the tables: user events are marked by a space before the URL, which no URL has."""
    return address.app_id, address.url + (_OF_USERS if address.is_of_users else "")


def _address(app_id: str, url: str) -> Address:
    return Address(app_id, url.removesuffix(_OF_USERS), url.endswith(_OF_USERS))


def _failed_batch(row: tuple[int, str, str, float, str, str]) -> FailedBatch:
    return FailedBatch(row[0], _address(row[1], row[2]), row[3], row[4], _entries.decode(row[5]))
