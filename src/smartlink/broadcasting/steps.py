"""Runs the same logic for synchronous and asynchronous callers.

A generator yields values that may be awaitable, and is sent their results. `settle` awaits them; `settle_sync` runs
them in an event loop of its own, so that synchronous rules run without a loop, as Django's ORM requires.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Generator
from typing import Any, TypeVar

__all__ = ["Steps", "settle", "settle_sync"]

T = TypeVar("T")
Steps = Generator[Any, Any, T]


async def settle(steps: Steps[T]) -> T:
    """Run `steps`, and return or raise the result."""
    outcome: Any = None
    failure: BaseException | None = None
    while True:
        is_done, value = _advance(steps, outcome, failure)
        if is_done:
            return value  # type: ignore[no-any-return]
        outcome = failure = None
        try:
            outcome = await value if inspect.isawaitable(value) else value
        except BaseException as error:  # noqa: BLE001 - passed to the generator
            failure = error


def settle_sync(steps: Steps[T]) -> T:
    """Run `steps` synchronously. Raises RuntimeError if something must be awaited inside a running loop."""
    outcome: Any = None
    failure: BaseException | None = None
    while True:
        is_done, value = _advance(steps, outcome, failure)
        if is_done:
            return value  # type: ignore[no-any-return]
        outcome = failure = None
        try:
            outcome = _run(value) if inspect.isawaitable(value) else value
        except BaseException as error:  # noqa: BLE001 - passed to the generator
            failure = error


def _advance(steps: Steps[T], outcome: Any, failure: BaseException | None) -> tuple[bool, Any]:
    resume: Callable[[], Any] = (lambda: steps.send(outcome)) if failure is None else lambda: steps.throw(failure)
    try:
        return False, resume()
    except StopIteration as end:
        return True, end.value


def _run(value: Awaitable[Any]) -> Any:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(_awaited(value))
    if inspect.iscoroutine(value):
        value.close()
    raise RuntimeError("a function of yours awaits something: inside a running loop, await the async twin of this call")


async def _awaited(value: Awaitable[Any]) -> Any:
    return await value
