"""Checks that the database accepts writes, by writing: a database on a full disk still answers reads."""

from __future__ import annotations

import asyncio
import math
import shutil
import time
from pathlib import Path

from sqlalchemy import text

from smartlink.background import Background
from smartlink.portal.shared.db import Database
from smartlink.portal.shared.errors import DatabaseAway

__all__ = ["FREE_BYTES", "DatabaseHealth"]

GOOD_FOR_S = 1.0
FREE_BYTES = 16 * 1024 * 1024
"""Free space that SQLite's disk must have: its log grows this large before it is checkpointed."""


class DatabaseHealth:
    """Checks the connection each time, and writes at most once a second.

    Callers that arrive during a check share the next one, so that many callers do not wait for each other.
    """

    def __init__(self, database: Database, background: Background) -> None:
        self._database = database
        self._background = background
        self._asking = asyncio.Lock()
        self._written_at = -math.inf
        self._unwritable: str | None = None
        """Why the last write failed."""
        self._asked_at = -math.inf
        """When the check began whose result is `_problem`."""
        self._problem: str | None = None

    async def check(self) -> list[str]:
        """Return a line for each background task that has died, for operators.

        Raises DatabaseAway, with the reason, if the database does not accept writes.
        """
        came_at = time.monotonic()
        async with self._asking:
            if self._asked_at < came_at:
                asked_at = time.monotonic()
                self._problem = await self._ask(asked_at)
                self._asked_at = asked_at
        if self._problem is not None:
            raise DatabaseAway(self._problem)
        return [f"Stopped: {name} ({reason})" for name, reason in self._background.died.items()]

    async def _ask(self, now: float) -> str | None:
        if now - self._written_at >= GOOD_FOR_S:
            self._unwritable = await self._found()
            self._written_at = time.monotonic()
            return self._unwritable
        try:
            async with self._database.reading() as session:
                await session.execute(text("SELECT 1"))
        except DatabaseAway as error:
            return error.message
        return self._unwritable

    async def _found(self) -> str | None:
        # Writes a page on SQLite, a transaction id on PostgreSQL: there is no row of our own to change.
        write = "PRAGMA user_version = 0" if self._database.is_sqlite else "SELECT pg_current_xact_id()"
        try:
            async with self._database.writing() as session:
                await session.execute(text(write))
        except DatabaseAway as error:
            cause = getattr(error.__cause__, "orig", None)
            why = str(cause) if self._database.is_sqlite and cause is not None else type(error.__cause__).__name__
            return f"The database does not accept writes: {why}."
        file = self._database.file
        if file is not None and (free := shutil.disk_usage(Path(file).parent).free) < FREE_BYTES:
            return f"The database's disk is full: {free // 1024} KiB free."
        return None
