"""Runs a relay's database work, with retries and back-off, so that the relay survives all errors of the database."""

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
    """Runs database work, and counts consecutive failures by kind: `read`, `mark`, `lease`."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._work = ShieldedTasks()
        self._ends_by_itself = engine.dialect.name == "sqlite"
        self._failures: dict[str, int] = {}

    async def do(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work`, which continues if the caller is cancelled. Raises what it raises."""
        return await self._work.do(work)

    async def wait(self, within_s: float) -> None:
        """Wait until all work has ended, for at most `within_s`."""
        await self._work.wait(within_s)

    async def leave(self, within_s: float) -> None:
        """Cancel work that may never end, such as waiting for a lock. On SQLite it ends by itself."""
        if not self._ends_by_itself:
            await self._work.cut_off(within_s)

    async def attempt(self, what: str, work: Coroutine[Any, Any, object]) -> float | None:
        """Run `work` once. Returns None, or the back-off in seconds if it failed."""
        try:
            await self._work.do(work)
        except Exception as error:  # noqa: BLE001 - the relay survives all errors of the database
            return self.note_failure(what, error)
        if failures := self._failures.pop(what, 0):
            # At the same level as the failure, so that its end is seen too.
            _log.warning("outbox: the database works again (%s), after %d failures", what, failures)
        return None

    def note_failure(self, what: str, error: Exception) -> float:
        """Count a failure, and log the first one. Returns the back-off in seconds."""
        failures = self._failures[what] = self._failures.get(what, 0) + 1
        if failures == 1:
            said = hint(error) or error
            _log.warning("outbox: the database failed (%s), retrying: %s: %s", what, type(error).__name__, said)
        return backoff_s(failures)

    async def surely(self, what: str, work: Callable[[], Coroutine[Any, Any, object]]) -> None:
        """Run `work`, and retry it until it succeeds."""
        while True:
            pause_s = await self.attempt(what, work())
            if pause_s is None:
                return
            await asyncio.sleep(pause_s)
