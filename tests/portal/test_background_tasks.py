"""The portal's background tasks: one that dies is reported in the log and in `/up`."""

from __future__ import annotations

import asyncio

import pytest

from kit.portal import World
from kit.waiting import eventually


async def test_a_dead_figures_task_is_an_error_in_the_log_and_in_up(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(max_age_s: float = 0.0) -> bool:
        raise ValueError("a bug")

    monkeypatch.setattr(world.portal.board, "has_viewer", broken)
    stop = asyncio.Event()
    working = asyncio.create_task(world.portal.work(stop))
    await eventually(lambda: "background task crashed, restart the process: live figures" in caplog.text)
    stop.set()
    await working

    assert "ValueError: a bug" in caplog.text
    told = await world.client().get("/up")
    assert told.status_code == 200
    assert told.json() == {"status": "degraded", "problems": ["Stopped: live figures (ValueError: a bug)"]}
