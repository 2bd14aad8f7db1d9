"""A real Redis on a free port, for as long as a test needs it."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from kit.serve import free_port
from kit.waiting import eventually

__all__ = ["RedisService", "redis_service"]


class RedisService:
    """A `redis-server` process that keeps nothing on disk."""

    def __init__(self, password: str = "") -> None:
        self.port = free_port()
        self.password = password
        self._process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        return f"redis://{f':{self.password}@' if self.password else ''}127.0.0.1:{self.port}/0"

    async def start(self) -> None:
        """Start, and wait until it accepts."""
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        options += ["--requirepass", self.password] if self.password else []
        self._process = await asyncio.create_subprocess_exec(
            "redis-server", *options, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
        )
        await eventually_listens(self.port)

    async def stop(self) -> None:
        """End it; connections are cut."""
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()
            await self._process.wait()

    def freeze(self) -> None:
        """Keep connections open and answer nothing, until `thaw`."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(signal.SIGCONT)


async def eventually_listens(port: int) -> None:
    """Return as soon as somebody accepts connections on `port`."""
    accepted: list[bool] = []

    async def knock() -> None:
        while not accepted:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except ConnectionError:
                await asyncio.sleep(0.01)
            else:
                writer.close()
                accepted.append(True)

    knocking = asyncio.create_task(knock())
    try:
        await eventually(lambda: accepted, what="redis-server accepts")
    finally:
        knocking.cancel()


@asynccontextmanager
async def redis_service(password: str = "") -> AsyncIterator[RedisService]:
    """A Redis that is ended with the block."""
    service = RedisService(password)
    await service.start()
    try:
        yield service
    finally:
        service.thaw()
        await service.stop()
