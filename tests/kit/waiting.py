"""Waiting for a condition, with a limit."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

__all__ = ["LIMIT_S", "eventually", "eventually_told", "wait_until"]

LIMIT_S = 90.0
"""How long a test waits for what must come at once. It says only that something hangs: a busy machine is slow."""


async def eventually(is_true: Callable[[], object], *, within_s: float = LIMIT_S, what: str = "") -> None:
    """Return as soon as `is_true()` is; raise AssertionError when it is not in time."""
    limit = time.monotonic() + within_s
    while not is_true():
        if time.monotonic() > limit:
            raise AssertionError(f"not within {within_s:g} s: {what or is_true}")
        await asyncio.sleep(0.003)


async def eventually_told(ask: Callable[[], Awaitable[object]], *, within_s: float = LIMIT_S, what: str = "") -> None:
    """Return as soon as `ask()` answers something true; raise AssertionError when it does not in time."""
    limit = time.monotonic() + within_s
    while not await ask():
        if time.monotonic() > limit:
            raise AssertionError(f"not within {within_s:g} s: {what or ask}")
        await asyncio.sleep(0.003)


def wait_until(is_true: Callable[[], object], *, within_s: float = LIMIT_S, what: str = "") -> None:
    """As `eventually`, for code without an event loop."""
    limit = time.monotonic() + within_s
    while not is_true():
        if time.monotonic() > limit:
            raise AssertionError(f"not within {within_s:g} s: {what or is_true}")
        time.sleep(0.02)
