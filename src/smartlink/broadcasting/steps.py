"""One piece of logic for callers that await and for callers that do not.

A generator yields whatever may have to be waited for and is sent the outcome. `settle` awaits what can be awaited;
`settle_sync` runs it in a loop of its own, so that plain rules run without any loop, as Django's ORM asks for.
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
    """Run to the end, awaiting."""
    outcome: Any = None
    failure: BaseException | None = None
    while True:
        is_done, value = _advance(steps, outcome, failure)
        if is_done:
            return value  # type: ignore[no-any-return]
        outcome = failure = None
        try:
            outcome = await value if inspect.isawaitable(value) else value
        except BaseException as error:  # noqa: BLE001 - handed to whoever waits for it
            failure = error


def settle_sync(steps: Steps[T]) -> T:
    """Run to the end, blocking. Raises RuntimeError where something must be awaited inside a running loop."""
    outcome: Any = None
    failure: BaseException | None = None
    while True:
        is_done, value = _advance(steps, outcome, failure)
        if is_done:
            return value  # type: ignore[no-any-return]
        outcome = failure = None
        try:
            outcome = _run(value) if inspect.isawaitable(value) else value
        except BaseException as error:  # noqa: BLE001 - handed to whoever waits for it
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
