"""Whether the database takes what is written: asked by writing, since a full disk still reads."""

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
"""What SQLite's disk must have left: its log takes as much before it is written into the database."""


class DatabaseHealth:
    """Writes at most once a second, however many want to know; whether the database is there is asked each time.

    Those who come while it is asked share the next answer: crowds at a public endpoint make nobody wait for long.
    """

    def __init__(self, database: Database, background: Background) -> None:
        self._database = database
        self._background = background
        self._asking = asyncio.Lock()
        self._written_at = -math.inf
        self._unwritable: str | None = None
        """Why the last write failed."""
        self._asked_at = -math.inf
        """When the question was put whose answer is `_problem`."""
        self._problem: str | None = None

    async def check(self) -> list[str]:
        """What is not done any more, for an operator to read. Raises DatabaseAway, with the reason, unless the
        database takes writes."""
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
        # On SQLite a page that is written, on PostgreSQL a transaction that is: it has no row of its own to change.
        write = "PRAGMA user_version = 0" if self._database.is_sqlite else "SELECT pg_current_xact_id()"
        try:
            async with self._database.writing() as session:
                await session.execute(text(write))
        except DatabaseAway as error:
            cause = getattr(error.__cause__, "orig", None)
            why = str(cause) if self._database.is_sqlite and cause is not None else type(error.__cause__).__name__
            return f"The database takes no writes: {why}."
        file = self._database.file
        if file is not None and (free := shutil.disk_usage(Path(file).parent).free) < FREE_BYTES:
            return f"The disk of the database is full: {free // 1024} KiB are free."
        return None
