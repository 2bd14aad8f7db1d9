"""Runs database work that is not cancelled with its caller.

If it is cancelled within a statement, a SQLite connection keeps its lock until the last traceback that refers to its
cursor is collected; cancelled twice, its closing waits forever for a thread that has ended.
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
    """Runs work in tasks of its own. Logs errors of work whose caller was cancelled."""

    def __init__(self) -> None:
        self._under_way: set[asyncio.Task[Any]] = set()
        self._abandoned: set[asyncio.Task[Any]] = set()

    async def do(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work`, and return or raise its result. If the caller is cancelled, the work continues."""
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
        """Wait until all work has ended, for at most `within_s`."""
        if self._under_way:
            await asyncio.wait(self._under_way, timeout=within_s)

    async def cut_off(self, within_s: float) -> None:
        """Cancel all work and wait for its end, for at most `within_s`. Not for SQLite: see above."""
        for task in self._under_way:
            task.cancel()
        await self.wait(within_s)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._under_way.discard(task)
        is_abandoned = task in self._abandoned
        self._abandoned.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None and is_abandoned:
            _log.warning("outbox: the database failed after the stop: %s: %s", type(error).__name__, error)
