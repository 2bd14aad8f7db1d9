"""One WebSocket to the server: from its opening, past the greeting, to its end."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import metadata
from typing import Any, Literal
from urllib.parse import quote, urlsplit

from websockets.asyncio.client import ClientConnection, connect, unix_connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from smartlink.client import frames
from smartlink.client.errors import ClientError
from smartlink.client.reconnecting import End
from smartlink.protocol.errors import Code
from smartlink.protocol.names import is_valid_socket_id

__all__ = ["Address", "Limits", "Link", "LinkEnded"]

_SCHEMES = {"ws": "ws", "wss": "wss", "http": "ws", "https": "wss"}
_FRAMES_AHEAD = 1_024
"""Frames that may wait between socket and client before the socket is read no further."""
_CLOSE_S = 1.0
_TRANSIENT = frozenset({408, 425, 429})


class LinkEnded(ClientError):
    """The connection has ended, or could not be opened; `end` says how."""

    def __init__(self, end: End) -> None:
        super().__init__(end.reason)
        self.end = end


@dataclass(frozen=True, slots=True)
class Address:
    """Where the server is, and how to get there."""

    url: str
    key: str
    headers: Mapping[str, str] = field(default_factory=dict)
    tls: ssl.SSLContext | None = None
    proxy: str | Literal[True] | None = True
    unix_socket: str | None = None

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        _ = parts.port  # raises ValueError for one that is no number
        if parts.scheme not in _SCHEMES or not parts.hostname or parts.query or parts.fragment:
            raise ValueError(f"the address of a realtime server looks like wss://ws.example.com:443, not {self.url!r}")
        if not self.key:
            raise ValueError("the application's key is empty")

    def uri(self, session_path: str) -> str:
        """The whole address of a connection."""
        parts = urlsplit(self.url)
        query = f"protocol=7&client=smartlink-python&version={_version()}&flash=false"
        path = f"{parts.path.rstrip('/')}{session_path}/app/{quote(self.key, safe='')}"
        return f"{_SCHEMES[parts.scheme]}://{parts.netloc}{path}?{query}"


@dataclass(frozen=True, slots=True)
class Limits:
    """Times in seconds, and the size of the largest frame in bytes."""

    open_s: float
    activity_s: float
    pong_s: float
    frame_bytes: int


class Link:
    """An open connection that the server has greeted."""

    def __init__(self, socket: ClientConnection, limits: Limits) -> None:
        """Use `open`."""
        self._socket = socket
        self._limits = limits
        self._activity_s = limits.activity_s
        self._loop = asyncio.get_running_loop()
        self._heard_at = self._loop.time()
        self._fault: frames.Frame | None = None
        self._silent = False
        self.socket_id = ""

    @classmethod
    async def open(cls, address: Address, session_path: str, limits: Limits) -> Link:
        """Connect and wait for the greeting. Raises LinkEnded."""
        try:
            async with asyncio.timeout(limits.open_s):
                link = cls(await _connected(address, session_path, limits), limits)
                try:
                    await link._greeted()
                except BaseException:
                    link.abort()
                    raise
                return link
        except LinkEnded:
            raise
        except InvalidStatus as error:
            status = error.response.status_code
            is_final = 400 <= status < 500 and status not in _TRANSIENT
            raise LinkEnded(End(None, _refusal(status, session_path), is_final)) from error
        except ssl.SSLCertVerificationError as error:
            raise LinkEnded(End(None, f"the certificate is not trusted: {error.verify_message}", True)) from error
        except TimeoutError as error:
            raise LinkEnded(End(None, f"no greeting within {limits.open_s:g} s")) from error
        except (OSError, WebSocketException, EOFError) as error:
            raise LinkEnded(End(None, str(error) or type(error).__name__)) from error

    async def receive(self) -> bytes:
        """Return the next frame's bytes. Raises LinkEnded."""
        try:
            received = await self._socket.recv(decode=False)
        except ConnectionClosed as closed:
            raise LinkEnded(self._end_of(closed)) from closed
        self._heard_at = self._loop.time()
        return received

    async def send(self, text: str) -> None:
        """Write a frame; waits while the socket takes no more. Raises LinkEnded."""
        try:
            await self._socket.send(text)
        except ConnectionClosed as closed:
            raise LinkEnded(self._end_of(closed)) from closed

    def note_fault(self, fault: frames.Frame) -> None:
        """Remember a `pusher:error`: some servers end without a close code behind it."""
        self._fault = fault

    async def watch(self) -> None:
        """Ask a silent server whether it lives, and cut the connection if it does not answer."""
        while True:
            idle_s = self._loop.time() - self._heard_at
            if idle_s < self._activity_s:
                await asyncio.sleep(self._activity_s - idle_s)
                continue
            asked_at = self._loop.time()
            try:
                async with asyncio.timeout(self._limits.pong_s):
                    await self.send(frames.PING)
            except LinkEnded:
                return
            except TimeoutError:
                pass  # It takes nothing any more, and so answers nothing.
            await asyncio.sleep(max(0.0, asked_at + self._limits.pong_s - self._loop.time()))
            if self._heard_at < asked_at:
                self._silent = True
                self.abort()
                return

    async def close(self) -> None:
        """Say goodbye, and wait a moment for the answer."""
        await self._socket.close()

    def abort(self) -> None:
        """End at once."""
        self._socket.transport.abort()

    async def _greeted(self) -> None:
        while not self.socket_id:
            frame = frames.decode(await self.receive())
            if frame is None:
                continue
            fields = frames.fields_of(frame.data)
            if frame.event == "pusher:error" and (code := _code(fields)) is not None:
                raise LinkEnded(End(code, str(fields.get("message", "refused"))))
            socket_id = fields.get("socket_id")
            if frame.event == "pusher:connection_established" and is_valid_socket_id(socket_id):
                self.socket_id = str(socket_id)
                told = fields.get("activity_timeout")
                if isinstance(told, int | float) and told > 0:
                    self._activity_s = min(self._activity_s, told)

    def _end_of(self, closed: ConnectionClosed) -> End:
        if self._silent:
            return End(None, "the server did not answer a ping")
        if closed.rcvd is None and closed.sent is not None and closed.sent.code == Code.TOO_BIG:
            return End(Code.TOO_BIG, f"a frame has more than max_frame_bytes={self._limits.frame_bytes}")
        if closed.rcvd is not None and closed.rcvd.code >= Code.TLS_ONLY:
            return End(closed.rcvd.code, closed.rcvd.reason)
        fields = {} if self._fault is None else frames.fields_of(self._fault.data)
        code = _code(fields) or 0
        if Code.TLS_ONLY <= code < Code.CLIENT_EVENT_REFUSED:
            return End(code, str(fields.get("message", "")))
        received = closed.rcvd
        return End(None, "connection lost") if received is None else End(received.code, received.reason)


async def _connected(address: Address, session_path: str, limits: Limits) -> ClientConnection:
    options: dict[str, Any] = {
        "additional_headers": dict(address.headers),
        "user_agent_header": f"smartlink-python/{_version()}",
        "compression": None,
        "open_timeout": None,
        "ping_interval": None,  # the protocol has pings of its own
        "close_timeout": _CLOSE_S,
        "max_size": limits.frame_bytes,
        "max_queue": _FRAMES_AHEAD,
    }
    if address.tls is not None and _SCHEMES[urlsplit(address.url).scheme] == "wss":
        options["ssl"] = address.tls
    uri = address.uri(session_path)
    if address.unix_socket is not None:
        return await unix_connect(address.unix_socket, uri, **options)
    return await connect(uri, proxy=address.proxy, **options)


@cache
def _version() -> str:
    return metadata.version("smartlink-realtime")


def _code(fields: dict[str, object]) -> int | None:
    code = fields.get("code")
    return code if isinstance(code, int) and not isinstance(code, bool) else None


def _refusal(status: int, session_path: str) -> str:
    text = f"the server refused the handshake with HTTP {status}"
    if status == 404 and session_path:
        text += "; only SmartLink's server has sessions: for others, session=False"
    return text
