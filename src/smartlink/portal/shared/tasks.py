"""Tasks that nobody waits for: one that dies is an error in the log."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

__all__ = ["start"]

log = logging.getLogger(__name__)


def start(name: str, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    """Run `work`. The caller keeps the task, and cancels it; `name` says what stands still without it."""
    task = asyncio.get_running_loop().create_task(work, name=name)
    task.add_done_callback(_look_at)
    return task


def _look_at(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("a background task died: %s", task.get_name(), exc_info=error)
