"""Waiting for a condition, with a limit."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

__all__ = ["LIMIT_S", "eventually", "eventually_told", "wait_until"]

LIMIT_S = 90.0
"""How long a test waits for what must come at once. It says only that something hangs: a busy machine is slow."""


_SHARE, _LONGEST_S = 5, 0.25
"""Pauses are this many times as long as the question took, up to so long: asking must not slow down what it waits for."""


def _pause(is_true: Callable[[], object]) -> float | None:
    """Return for how long to pause before asking again; None if it is true."""
    asked = time.monotonic()
    return None if is_true() else min(_LONGEST_S, _SHARE * (time.monotonic() - asked))


async def eventually(is_true: Callable[[], object], *, within_s: float = LIMIT_S, what: str = "") -> None:
    """Return as soon as `is_true()` is; raise AssertionError when it is not in time."""
    limit = time.monotonic() + within_s
    while (pause := _pause(is_true)) is not None:
        if time.monotonic() > limit:
            raise AssertionError(f"not within {within_s:g} s: {what or is_true}")
        await asyncio.sleep(max(0.003, pause))


async def eventually_told(ask: Callable[[], Awaitable[object]], *, within_s: float = LIMIT_S, what: str = "") -> None:
    """Return as soon as `ask()` answers something true; raise AssertionError when it does not in time."""
    limit = time.monotonic() + within_s
    asked = time.monotonic()
    while not await ask():
        now = time.monotonic()
        if now > limit:
            raise AssertionError(f"not within {within_s:g} s: {what or ask}")
        await asyncio.sleep(max(0.003, min(_LONGEST_S, _SHARE * (now - asked))))
        asked = time.monotonic()


def wait_until(is_true: Callable[[], object], *, within_s: float = LIMIT_S, what: str = "") -> None:
    """As `eventually`, for code without an event loop."""
    limit = time.monotonic() + within_s
    while (pause := _pause(is_true)) is not None:
        if time.monotonic() > limit:
            raise AssertionError(f"not within {within_s:g} s: {what or is_true}")
        time.sleep(max(0.02, pause))
