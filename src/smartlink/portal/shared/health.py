"""Whether the database takes what is written: asked by writing, since a full disk still reads."""

from __future__ import annotations

import asyncio
import shutil
import time
from pathlib import Path

from sqlalchemy import text

from smartlink.portal.shared.db import Database
from smartlink.portal.shared.errors import DatabaseAway

__all__ = ["FREE_BYTES", "Health"]

GOOD_FOR_S = 1.0
FREE_BYTES = 16 * 1024 * 1024
"""What SQLite's disk must have left: its log takes as much before it is written into the database."""


class Health:
    """Writes at most once a second, however many want to know; whether the database is there is asked each time."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._asking = asyncio.Lock()
        self._asked_at = -GOOD_FOR_S
        self._problem: str | None = None

    async def check(self) -> None:
        """Raises DatabaseAway, with the reason, unless the database takes writes."""
        async with self._asking:
            if time.monotonic() - self._asked_at >= GOOD_FOR_S:
                self._problem = await self._found()
                self._asked_at = time.monotonic()
            else:
                async with self._database.reading() as session:
                    await session.execute(text("SELECT 1"))
            if self._problem is not None:
                raise DatabaseAway(self._problem)

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
