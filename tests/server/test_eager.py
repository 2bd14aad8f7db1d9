"""Eager coroutines: running several together, and their errors."""

from __future__ import annotations

import asyncio

import pytest

from smartlink.server.runtime.eager import in_one_turn


async def test_gathered_coroutines_all_start_before_any_is_awaited() -> None:
    answered = asyncio.Event()
    begun: list[str] = []
    ended: list[str] = []

    async def ask(name: str) -> None:
        begun.append(name)
        await answered.wait()
        ended.append(name)

    async def know(name: str) -> None:
        begun.append(name)

    together = asyncio.ensure_future(in_one_turn(ask("a"), know("b"), ask("c")))
    await asyncio.sleep(0)
    assert (begun, ended) == (["a", "b", "c"], [])
    answered.set()
    await together

    assert ended == ["a", "c"]


async def test_an_error_of_one_is_raised_when_all_have_ended() -> None:
    ended: list[str] = []

    async def fail(wait: float) -> None:
        await asyncio.sleep(wait)
        raise ValueError(wait)

    async def work() -> None:
        await asyncio.sleep(0.02)
        ended.append("work")

    with pytest.raises(ValueError, match="0"):
        await in_one_turn(fail(0), work())
    assert ended == ["work"]
