"""`SyncBroadcaster` with green threads: gevent and eventlet workers of gunicorn and Celery, as processes."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from kit import processes
from kit.ports import free_port
from kit.pusher_service import PusherService, pusher_service
from kit.waiting import eventually, eventually_told

HERE = Path(__file__).parent
CELERY = ("celery>=5.4", "gevent>=24.11")
EVENTLET = ("gunicorn>=23,<24", "eventlet>=0.36")


@pytest.fixture
async def service() -> AsyncIterator[PusherService]:
    async with pusher_service() as service:
        yield service


@asynccontextmanager
async def running(service: PusherService, *command: str, **more: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """The command, told to end at the end of the block: it has to be able to."""
    environment = {**os.environ, "SERVICE_PORT": str(service.port), "PYTHONPATH": str(HERE), **more}
    process = await processes.spawn(*command, env=environment, cwd=HERE)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        async with asyncio.timeout(30):
            await process.wait()


def gunicorn(python: str, kind: str, port: int) -> Sequence[str]:
    return [python, "-m", "gunicorn", "-k", kind, "-w", "1", "-b", f"127.0.0.1:{port}", "--log-level", "warning",
            "--graceful-timeout", "5", "green_app:application"]  # fmt: skip


async def get(port: int, path: str) -> int:
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return 0
    writer.write(f"GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".encode())
    head = await reader.readline()
    writer.close()
    return int(head.split()[1]) if head else 0


async def serves_many_at_once(service: PusherService, python: str, kind: str) -> None:
    port, held = free_port(), asyncio.Event()
    answers: list[int] = []

    async def ask(path: str) -> None:
        answers.append(await get(port, path))

    async with running(service, *gunicorn(python, kind, port)) as process:
        await eventually_told(lambda: get(port, "/first"), within_s=30)
        assert process.returncode is None
        service.hold = held
        slow = [asyncio.create_task(ask(f"/slow/{n}")) for n in range(8)]
        # All of them are on their way at once: none holds up another.
        await eventually(lambda: service.held == 8, within_s=30)
        service.hold = None
        await ask("/quick")
        held.set()
        await asyncio.gather(*slow)

    assert answers == [200] * 9
    assert {payload["path"] for payload in service.payloads("news")} >= {"/quick", *(f"/slow/{n}" for n in range(8))}


async def test_a_gevent_worker_of_gunicorn_sends_every_event(service: PusherService) -> None:
    await serves_many_at_once(service, sys.executable, "gevent")


async def test_a_patched_script_sends_from_many_green_threads_and_exits(service: PusherService) -> None:
    script = (
        "from gevent import monkey; monkey.patch_all()\n"
        "import gevent, green_app\n"
        "gevent.joinall([gevent.spawn(green_app.send, str(n)) for n in range(40)], raise_error=True)\n"
        "green_app.broadcaster.close()\n"
        "green_app.send('again')\n"
    )

    async with running(service, sys.executable, "-c", script) as process:
        async with asyncio.timeout(60):
            assert await process.wait() == 0

    assert {payload["path"] for payload in service.payloads("news")} == {*map(str, range(40)), "again"}


@pytest.mark.green
@pytest.mark.timeout(600)
async def test_an_eventlet_worker_of_gunicorn_sends_every_event(service: PusherService, tmp_path: Path) -> None:
    await serves_many_at_once(service, environment(tmp_path, EVENTLET), "eventlet")


@pytest.mark.green
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("pool", "needs"), [("gevent", CELERY), ("eventlet", ("celery>=5.4", EVENTLET[1]))])
async def test_a_green_pool_of_celery_sends_with_each_task(
    service: PusherService, tmp_path: Path, pool: str, needs: Sequence[str]
) -> None:
    python, folder = environment(tmp_path, needs), tmp_path / "broker"
    folder.mkdir()
    worker = [python, "-m", "celery", "-A", "green_app:celery", "worker", "-P", pool, "-c", "10", "-l", "warning"]
    call = "import green_app\nfor n in range(20): green_app.task.delay(str(n))"

    async with running(service, python, "-c", call, CELERY_FOLDER=str(folder)) as process:
        assert await process.wait() == 0
    async with running(service, *worker, CELERY_FOLDER=str(folder)):
        await eventually(lambda: len(service.payloads("news")) == 20)


def environment(folder: Path, needs: Sequence[str]) -> str:
    """A virtual environment with what this one has, and `needs`."""
    python = folder / "venv" / "bin" / "python"
    uv: list[Any] = [sys.executable, "-m", "uv"]
    processes.run([*uv, "venv", "-q", "--python", sys.executable, str(folder / "venv")], check=True)
    processes.run(
        [*uv, "pip", "install", "-q", "--python", str(python), "-e", f"{HERE.parents[1]}[broadcasting]", *needs],
        check=True, timeout=400,
    )  # fmt: skip
    return str(python)
