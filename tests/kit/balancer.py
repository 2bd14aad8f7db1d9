"""A TCP balancer before several servers: it can cut connections, or drop what they carry."""

from __future__ import annotations

import asyncio
from itertools import count

from kit.tcp import Listener

__all__ = ["Balancer"]


class Balancer:
    """Gives connections to the servers in turn, passing over those that refuse."""

    def __init__(self, *ports: int) -> None:
        self.ports = list(ports)
        self._turn = count()
        self._listener = Listener(self._carry)
        self._open = asyncio.Event()
        self._open.set()

    @property
    def port(self) -> int:
        return self._listener.port

    async def start(self) -> None:
        await self._listener.start()

    async def stop(self) -> None:
        self._open.set()
        await self._listener.stop()

    async def cut(self) -> None:
        """End all connections, as a reset does."""
        await self._listener.cut()

    async def swallow(self, for_s: float) -> None:
        """Carry nothing for a while, as a dead line; then the connections there were end."""
        self._open.clear()
        await asyncio.sleep(for_s)
        await self._listener.cut()
        self._open.set()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server = await self._server()
        try:
            pumps = [
                asyncio.create_task(self._pump(reader, server[1])),
                asyncio.create_task(self._pump(server[0], writer)),
            ]
            try:
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for pump in pumps:
                    pump.cancel()
                await asyncio.wait(pumps)
        finally:
            server[1].transport.abort()

    async def _server(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        while True:
            for _ in self.ports:
                port = self.ports[next(self._turn) % len(self.ports)]
                try:
                    return await asyncio.open_connection("127.0.0.1", port)
                except OSError:
                    continue
            await asyncio.sleep(0.05)

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(65_536):
                if not self._open.is_set():
                    continue  # lost on the way
                sink.write(data)
                await sink.drain()
        except OSError:
            pass  # The other pump's end follows.
