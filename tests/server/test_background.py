"""Long-lived tasks: one that dies is reported by name."""

from __future__ import annotations

import asyncio

import pytest

from kit.observing import observed
from kit.realtime import call, realtime_server
from kit.waiting import eventually
from smartlink import background as module
from smartlink.background import Background, ended
from smartlink.server.run.lifecycle import RealtimeServer


async def test_a_dead_task_is_an_error_in_the_log_in_up_and_in_readyz(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(self: object, now: float) -> None:
        raise ValueError("a bug")

    monkeypatch.setattr("smartlink.server.runtime.rates.RateSampler.sweep", broken)
    async with realtime_server() as server:
        await eventually(lambda: died_in(server) == 1)
        up = await call(server.port, "GET", "/up")
        status, body = await observed(server, "/readyz")

    assert (up.status_code, up.json()["health"]) == (200, "degraded")
    assert up.json()["problems"] == ["Stopped: sweeping connections (ValueError: a bug)"]
    assert (status, body) == (503, "A background task crashed: see the log, then restart\n")
    assert "background task crashed" in caplog.text


def died_in(server: RealtimeServer) -> float:
    return server.rates.figures()["smartlink_tasks_died"]


async def test_a_cancelled_task_is_not_dead_and_a_restarted_one_is_alive() -> None:
    background, forever = Background(), asyncio.Event()

    async def wait() -> None:
        await forever.wait()

    async def fail() -> None:
        raise OSError("gone")

    task = background.start("waiting", wait())
    task.cancel()
    await asyncio.wait((task,))
    assert background.died == {}
    await asyncio.wait((background.start("failing", fail()),))
    await asyncio.sleep(0)
    assert background.died == {"failing": "OSError: gone"}
    background.start("failing", asyncio.sleep(0))
    assert background.died == {}


async def test_a_task_that_swallows_its_cancellation_is_cancelled_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CANCEL_AGAIN_S", 0.05)
    lost: list[str] = []

    async def lossy() -> None:
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                if lost:
                    raise
                lost.append("once")

    async def failing() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise OSError("gone")

    tasks = [asyncio.create_task(lossy()), asyncio.create_task(failing())]
    await asyncio.sleep(0)
    await ended(None, *tasks)

    assert all(task.done() for task in tasks)
    assert lost == ["once"]
