"""Waiting for what must come true, with a limit."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

__all__ = ["eventually"]


async def eventually(is_true: Callable[[], object], *, within_s: float = 10.0, what: str = "") -> None:
    """Return as soon as `is_true()` is; raise AssertionError when it is not in time."""
    limit = time.monotonic() + within_s
    while not is_true():
        if time.monotonic() > limit:
            raise AssertionError(f"not within {within_s:g} s: {what or is_true}")
        await asyncio.sleep(0.003)
