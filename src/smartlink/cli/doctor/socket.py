"""A minimal WebSocket client: enough to find out whether a server, or the proxy in front of it, accepts one."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
import ssl
from types import TracebackType
from typing import Any, Self

__all__ = ["NoUpgrade", "Socket"]

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, section 1.3
MAX_FRAME_BYTES = 1 << 20


class NoUpgrade(Exception):
    """The handshake was not answered with 101. `status` is the HTTP status, or 0 if the answer was not HTTP."""

    def __init__(self, status: int) -> None:
        super().__init__(f"it answered {status}" if status else "its answer is not HTTP")


class Socket:
    """One connection, as an async context manager. Sets no time limits: callers do.

    Raises NoUpgrade, OSError, and EOFError when the other side closes.
    """

    def __init__(self, host: str, port: int, path: str, *, is_tls: bool, origin: str | None) -> None:
        self._host, self._port, self._path = host, port, path
        self._is_tls = is_tls
        self._origin = origin
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter

    async def __aenter__(self) -> Self:
        context = ssl.create_default_context() if self._is_tls else None
        self._reader, self._writer = await asyncio.open_connection(self._host, self._port, ssl=context)
        try:
            await self._shake_hands()
        except BaseException:
            self._writer.transport.abort()
            raise
        return self

    async def __aexit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._writer.write(b"\x88\x82" + bytes(4) + (1000).to_bytes(2, "big"))
        self._writer.close()

    @property
    def certificate_ends_at(self) -> float | None:
        """When the server's certificate ends, in seconds since 1970; None without TLS."""
        told = self._writer.get_extra_info("peercert")
        return ssl.cert_time_to_seconds(str(told["notAfter"])) if told else None

    async def send(self, message: Any) -> None:
        """Send `message` as JSON, up to 64 KiB."""
        payload = json.dumps(message).encode()
        size = bytes([0x80 | len(payload)]) if len(payload) < 126 else b"\xfe" + len(payload).to_bytes(2, "big")
        mask = os.urandom(4)
        self._writer.write(b"\x81" + size + mask + bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload)))
        await self._writer.drain()

    async def receive(self) -> dict[str, Any]:
        """Return the next message, a JSON object."""
        while True:
            first, second = await self._reader.readexactly(2)
            size = second & 0x7F
            if size >= 126:
                size = int.from_bytes(await self._reader.readexactly(2 if size == 126 else 8), "big")
            if size > MAX_FRAME_BYTES:
                raise EOFError
            payload = await self._reader.readexactly(size)
            if first & 0x0F == 8:
                raise EOFError
            if first & 0x0F == 1:
                message = json.loads(payload)
                return message if isinstance(message, dict) else {}

    async def _shake_hands(self) -> None:
        key = base64.b64encode(os.urandom(16))
        name = f"[{self._host}]" if ":" in self._host else self._host
        lines = [
            f"GET {self._path} HTTP/1.1",
            f"Host: {name}:{self._port}",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Key: {key.decode()}",
            "Sec-WebSocket-Version: 13",
            *([] if self._origin is None else [f"Origin: {self._origin}"]),
        ]
        self._writer.write("\r\n".join([*lines, "", ""]).encode())
        try:
            head = await self._reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            raise NoUpgrade(0) from None
        words = head.split(b" ", 2)
        status = int(words[1]) if len(words) > 1 and words[1].isdigit() else 0
        accept = base64.b64encode(hashlib.sha1(key + _GUID).digest())  # noqa: S324 — the handshake's own
        if status != 101 or accept not in head:
            raise NoUpgrade(status)
