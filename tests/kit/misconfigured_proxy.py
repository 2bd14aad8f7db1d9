"""A proxy before the portal and a realtime server, right by default, that can be configured wrongly."""

from __future__ import annotations

import asyncio
import re
import ssl
from dataclasses import dataclass
from datetime import datetime, timedelta
from email.utils import format_datetime, parsedate_to_datetime
from urllib.parse import urlsplit

from kit.tcp import Listener

__all__ = ["MisconfiguredProxy"]

_INNER = ("/webhooks/", "/metrics", "/apps/", "/users/")
_SESSION = re.compile(r"/s/[^/]+/(pusher/)?app/")
_DATE = re.compile(rb"(?i)(\r\ndate: *)([^\r]*)")
_SERVER = re.compile(rb"(?i)\r\nserver:[^\r]*")


@dataclass
class MisconfiguredProxy:
    """Carries one request per connection, or a WebSocket."""

    app_port: int
    realtime_port: int
    drops_upgrades: bool = False
    buffers: bool = False
    passes_sessions: bool = True
    date_shift_s: int = 0
    name: str = ""
    """Its `Server` header, if any."""
    closes_on_ping: bool = False
    """Closes a socket at the server's first ping, as with an idle timeout of just that length."""
    tls: ssl.SSLContext | None = None

    def __post_init__(self) -> None:
        self._listener = Listener(self._carry)

    @property
    def port(self) -> int:
        return self._listener.port

    async def start(self) -> None:
        await self._listener.start(tls=self.tls)

    async def stop(self) -> None:
        await self._listener.stop()

    def _port_for(self, path: str) -> int:
        is_session = self.passes_sessions and _SESSION.match(path)
        return self.realtime_port if is_session or path.startswith(("/app/", "/pusher/app/")) else self.app_port

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        path = urlsplit(head.split(b" ", 2)[1].decode()).path
        if path.startswith(_INNER):
            writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            return
        is_socket = b"\r\nupgrade: websocket" in head.lower() and not self.drops_upgrades
        if not is_socket:
            head = re.sub(rb"(?i)\r\n(upgrade|connection):[^\r]*", b"", head)
            head = head.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
        length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
        body = await reader.readexactly(int(length[1])) if length else b""
        server = await asyncio.open_connection("127.0.0.1", self._port_for(path))
        up = asyncio.create_task(self._pump(reader, server[1]))
        try:
            server[1].write(head + body)
            await self._answer(server[0], writer, is_socket=is_socket)
        finally:
            up.cancel()
            await asyncio.wait([up])
            server[1].transport.abort()

    async def _answer(self, server: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_socket: bool) -> None:
        answer = self._rewritten(await server.readuntil(b"\r\n\r\n"))
        if self.buffers and not is_socket:
            writer.write(answer + await server.read())
            await writer.drain()
            return
        writer.write(answer)
        while data := await server.read(65_536):
            if self.closes_on_ping and b"pusher:ping" in data:
                return
            writer.write(data)
            await writer.drain()

    def _rewritten(self, head: bytes) -> bytes:
        if self.name:
            head = _SERVER.sub(b"", head).replace(b"\r\n\r\n", f"\r\nServer: {self.name}\r\n\r\n".encode())
        return _DATE.sub(lambda found: found[1] + self._shifted(found[2]), head)

    def _shifted(self, date: bytes) -> bytes:
        there: datetime = parsedate_to_datetime(date.decode()) + timedelta(seconds=self.date_shift_s)
        return format_datetime(there, usegmt=True).encode()

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(65_536):
                sink.write(data)
                await sink.drain()
            sink.transport.abort()  # the client has left
        except OSError:
            pass  # The other direction ends too.
