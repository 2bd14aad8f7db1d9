"""The database as a relay sees it: whatever it does, the relay outlives it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from sqlalchemy.ext.asyncio import AsyncEngine

from smartlink.broadcasting.outbox.hints import hint
from smartlink.broadcasting.outbox.queue import backoff_s
from smartlink.broadcasting.outbox.shielded import ShieldedTasks

__all__ = ["RelayDatabase"]

_log = logging.getLogger("smartlink.broadcasting.outbox")

T = TypeVar("T")


class RelayDatabase:
    """Work at the database, and how often it has failed lately, by what it was for: `read`, `mark`, `share`."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._work = ShieldedTasks()
        self._ends_by_itself = engine.dialect.name == "sqlite"
        self._failures: dict[str, int] = {}

    async def do(self, work: Coroutine[Any, Any, T]) -> T:
        """Do `work`, undisturbed; raises what it raises."""
        return await self._work.do(work)

    async def wait(self, within_s: float) -> None:
        """Wait until all that is under way has ended, at most so long."""
        await self._work.wait(within_s)

    async def leave(self, within_s: float) -> None:
        """Let nothing go on that may never end. SQLite gives up by itself; another server may wait for a lock."""
        if not self._ends_by_itself:
            await self._work.cut_off(within_s)

    async def attempt(self, what: str, work: Coroutine[Any, Any, object]) -> float | None:
        """Do `work` once; None, or, if it failed, for how many seconds to leave the database alone."""
        try:
            await self._work.do(work)
        except Exception as error:  # noqa: BLE001 - whatever a database does, the relay outlives it
            return self.note_failure(what, error)
        if failures := self._failures.pop(what, 0):
            # As loud as the failure: whoever saw that one is to see its end.
            _log.warning("outbox: the database answers again (%s), after %d failures", what, failures)
        return None

    def note_failure(self, what: str, error: Exception) -> float:
        """Count it, and tell of the first one; for how many seconds to leave the database alone."""
        failures = self._failures[what] = self._failures.get(what, 0) + 1
        if failures == 1:
            said = hint(error) or error
            _log.warning("outbox: the database failed (%s), trying again: %s: %s", what, type(error).__name__, said)
        return backoff_s(failures)

    async def surely(self, what: str, work: Callable[[], Coroutine[Any, Any, object]]) -> None:
        """Do `work` again and again, until it does not fail."""
        while True:
            pause_s = await self.attempt(what, work())
            if pause_s is None:
                return
            await asyncio.sleep(pause_s)
