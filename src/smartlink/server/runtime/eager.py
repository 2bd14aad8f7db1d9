"""Runs coroutines immediately, and creates a task only for those that have to wait.

The node's methods are coroutines because an engine between nodes may wait. In memory nothing waits: the coroutine then
finishes in its first step and costs a call, not a turn of the loop. An engine that waits must do so on futures of its
own (not on timeouts bound to the current task: in the first step there is none).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator
from typing import Any, TypeVar

import structlog

from smartlink.server.runtime.metrics import Metrics

__all__ = ["AT_ONCE", "EagerTasks", "in_one_turn", "yield_now_and_then"]

T = TypeVar("T")
log = structlog.get_logger(__name__)


AT_ONCE = 100
"""Channels left, or connections ended, before the loop handles other work."""


async def yield_now_and_then(done: int) -> None:
    """Yield to the loop, once in `AT_ONCE` times."""
    if done % AT_ONCE == 0:
        await asyncio.sleep(0)


class _Resume:
    """The rest of a coroutine whose first step is waiting for `future`."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], future: Any) -> None:
        self._coroutine = coroutine
        self._future = future

    def __await__(self) -> Generator[Any, Any, Any]:
        future = self._future
        while True:
            thrown: BaseException | None = None
            value = None
            try:
                value = yield future
            except BaseException as error:  # noqa: BLE001 — passed on to the coroutine
                thrown = error
            try:
                future = self._coroutine.send(value) if thrown is None else self._coroutine.throw(thrown)
            except StopIteration as stop:
                return stop.value


async def in_one_turn(*coroutines: Coroutine[Any, Any, Any]) -> None:
    """Run the first step of each before awaiting any, so that their commands to an engine leave together and in order.

    Raises the first error once all are done.
    """
    waiting: list[_Resume] = []
    faults: list[Exception] = []
    for coroutine in coroutines:
        try:
            waiting.append(_Resume(coroutine, coroutine.send(None)))
        except StopIteration:
            continue
        except Exception as error:  # noqa: BLE001 — raised below
            faults.append(error)
    for resume in waiting:
        try:
            await resume
        except Exception as error:  # noqa: BLE001 — raised below
            faults.append(error)
    if faults:
        raise faults[0]


async def _rest(resume: _Resume) -> Any:
    return await resume


class EagerTasks:
    """Owns the tasks of coroutines that had to wait, and logs their exceptions."""

    def __init__(self, metrics: Metrics) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._metrics = metrics

    def run(
        self,
        coroutine: Coroutine[Any, Any, T],
        done: Callable[[T], None] | None = None,
        failed: Callable[[], None] | None = None,
    ) -> bool:
        """Run `coroutine`; pass its result to `done`, now or later. Returns whether it has finished.

        An exception is a bug: it is logged and counted, and `failed` is called.
        """
        try:
            future = coroutine.send(None)
        except StopIteration as stop:
            result: T = stop.value
        except Exception:  # the boundary: one connection's failure must not stop the loop
            self._metrics.internal_errors += 1
            log.exception("internal error")
            if failed is not None:
                failed()
            return True
        else:
            self._go_on(coroutine, future, done, failed)
            return False
        if done is not None:
            done(result)
        return True

    def _go_on(
        self,
        coroutine: Coroutine[Any, Any, T],
        future: Any,
        done: Callable[[T], None] | None,
        failed: Callable[[], None] | None,
    ) -> None:
        task = asyncio.get_running_loop().create_task(_rest(_Resume(coroutine, future)))
        self._tasks.add(task)
        task.add_done_callback(lambda task: self._finish(task, done, failed))

    def _finish(
        self,
        task: asyncio.Task[Any],
        done: Callable[[Any], None] | None,
        failed: Callable[[], None] | None,
    ) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            return
        if (error := task.exception()) is not None:
            self._metrics.internal_errors += 1
            log.error("internal error", exc_info=error)
            if failed is not None:
                failed()
        elif done is not None:
            done(task.result())

    async def stop(self, timeout_s: float = 5.0) -> None:
        """Wait for pending tasks, then cancel the rest."""
        if self._tasks:
            _, pending = await asyncio.wait(tuple(self._tasks), timeout=timeout_s)
            for task in pending:
                task.cancel()
            if pending:
                await asyncio.wait(pending, timeout=timeout_s)
