"""Tasks that run as long as their process, and a record of those that crashed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

__all__ = ["Background", "ended"]

CANCEL_AGAIN_S = 3.0

log = logging.getLogger(__name__)


class Background:
    """Starts such tasks; the caller keeps and cancels them. One that raises is logged and recorded in `died`."""

    def __init__(self) -> None:
        self.died: dict[str, str] = {}
        """Crashed tasks, which stay down until the process restarts: name to reason."""

    def start(self, name: str, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run `work`. `name` says what stops working without it."""
        self.died.pop(name, None)
        task = asyncio.get_running_loop().create_task(work, name=name)
        task.add_done_callback(self._on_done)
        return task

    def _on_done(self, task: asyncio.Task[None]) -> None:
        if task.cancelled() or (error := task.exception()) is None:
            return
        name = task.get_name()
        self.died[name] = f"{type(error).__name__}: {str(error)[:200]}"
        log.error("background task crashed, restart the process: %s", name, exc_info=error)


async def ended(*tasks: asyncio.Task[Any] | None) -> None:
    """Cancel `tasks` and wait until all have ended. Their exceptions are not raised.

    Cancels again every few seconds: before Python 3.12, `asyncio.wait_for` loses a cancellation that arrives as the
    awaited future completes, and client libraries use it.
    """
    running = {task for task in tasks if task is not None and not task.done()}
    while running:
        for task in running:
            task.cancel()
        over, running = await asyncio.wait(running, timeout=CANCEL_AGAIN_S)
        for task in over:
            if not task.cancelled():
                task.exception()  # retrieved: nobody else asks
