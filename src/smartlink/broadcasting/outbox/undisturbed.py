"""Work at a database that nobody cuts off: whoever waited for it may go, it ends by itself.

Cut off in the midst of a statement, a SQLite connection keeps its lock until the last traceback that knows its cursor
is collected; and cut off twice, its closing waits for ever for a thread that has ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

__all__ = ["Undisturbed"]

T = TypeVar("T")


class Undisturbed:
    """Runs each piece of work as a task of its own."""

    def __init__(self) -> None:
        self._under_way: set[asyncio.Task[Any]] = set()

    async def do(self, work: Coroutine[Any, Any, T]) -> T:
        """Do `work` and return what it does, or raise what it raises; cancelled, leave it to itself."""
        task = asyncio.create_task(work)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        return await asyncio.shield(task)

    async def wait(self, within_s: float) -> None:
        """Wait until all that is under way has ended, at most so long."""
        if self._under_way:
            await asyncio.wait(self._under_way, timeout=within_s)
