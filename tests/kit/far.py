"""A slow network line: data arrives later, in order and complete."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from kit.tcp import Listener

__all__ = ["FarAway"]

CHUNK = 64 * 1024
CHUNKS_UNDER_WAY = 256


class FarAway:
    """A TCP proxy on `port`, or on a free one for 0, before `target` of this machine.

    Every byte takes `one_way_s` seconds, either way.
    """

    def __init__(self, port: int, target: int, one_way_s: float) -> None:
        self.port = port
        self._target = target
        self._one_way_s = one_way_s
        self._listener = Listener(self._carry)
        self._flows = asyncio.Event()
        self._flows.set()

    async def start(self) -> None:
        await self._listener.start(self.port)
        self.port = self._listener.port

    def hold(self) -> None:
        """Nothing arrives any more, on either side, and nobody is told."""
        self._flows.clear()

    def release(self) -> None:
        self._flows.set()

    def lead_to(self, target: int) -> None:
        """Carry new connections to another port."""
        self._target = target

    async def cut(self) -> None:
        """End every connection there is. New ones are taken."""
        await self._listener.cut()

    async def close(self) -> None:
        await self._listener.stop()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._later(reader, far_writer))
                both.create_task(self._later(far_reader, writer))
        except* OSError:
            pass  # Either end hung up.
        finally:
            far_writer.close()

    async def _later(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        clock = asyncio.get_running_loop().time
        under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(CHUNKS_UNDER_WAY)

        async def arrive() -> None:
            while True:
                at, chunk = await under_way.get()
                await asyncio.sleep(max(0.0, at - clock()))
                await self._flows.wait()
                if not chunk:
                    with suppress(OSError):
                        writer.write_eof()
                    return
                writer.write(chunk)
                await writer.drain()

        async with asyncio.TaskGroup() as both:
            both.create_task(arrive())
            while True:
                chunk = await reader.read(CHUNK)
                await under_way.put((clock() + self._one_way_s, chunk))
                if not chunk:
                    return
