"""Work at a database that nobody cuts off: whoever waited for it may go, it ends by itself.

Cut off in the midst of a statement, a SQLite connection keeps its lock until the last traceback that knows its cursor
is collected; and cut off twice, its closing waits for ever for a thread that has ended.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, TypeVar

__all__ = ["ShieldedTasks"]

T = TypeVar("T")

_log = logging.getLogger("smartlink.broadcasting.outbox")


class ShieldedTasks:
    """Runs each piece of work as a task of its own. What fails after its caller has gone is logged."""

    def __init__(self) -> None:
        self._under_way: set[asyncio.Task[Any]] = set()
        self._abandoned: set[asyncio.Task[Any]] = set()

    async def do(self, work: Coroutine[Any, Any, T]) -> T:
        """Do `work` and return what it does, or raise what it raises; cancelled, leave it to itself."""
        task = asyncio.create_task(work)
        self._under_way.add(task)
        task.add_done_callback(self._ended)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if not task.done():
                self._abandoned.add(task)
            raise

    async def wait(self, within_s: float) -> None:
        """Wait until all that is under way has ended, at most so long."""
        if self._under_way:
            await asyncio.wait(self._under_way, timeout=within_s)

    async def cut_off(self, within_s: float) -> None:
        """Cancel all that is under way, and wait for its end, at most so long. Not for SQLite: see above."""
        for task in self._under_way:
            task.cancel()
        await self.wait(within_s)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._under_way.discard(task)
        is_abandoned = task in self._abandoned
        self._abandoned.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None and is_abandoned:
            _log.warning("outbox: the database failed after the stop: %s: %s", type(error).__name__, error)
