"""The link of a client over HTTP: output waits for an outlet, and is sent as lines.

An outlet is the response to one request of the client: a stream, which carries lines until it is full, or a poll, which
ends with the first line. Between two outlets the lines wait here. Lines in pusher-js' format: `o` opens, `a["…",…]` are
messages, `a[]` answers a liveness check, `h` is a heartbeat, `c[code,"reason"]` the close.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import msgspec

from smartlink.server.net.framing import CLOSE, TEXT, server_frames
from smartlink.server.net.link import Handler

__all__ = ["HELD_S", "OPEN_LINE", "Outlet", "XhrLink", "close_line", "message_line"]

FULL_UNITS = 262_144
"""UTF-16 code units after which pusher-js drops a stream and requests the next."""
HELD_S = 25.0
"""Longest silence on an outlet: proxies cut idle responses."""
REOPENED_S = 10.0
"""How long a client may take to request again after a poll was answered or a stream was full."""
FIRST_REOPENED_S = 5.0
"""The same for a client that has sent nothing since it opened the session."""

OPEN_LINE = b"o\n"
_HEARTBEAT_LINE = b"h\n"
_ALIVE = b"a[]\n"

_encode = msgspec.json.Encoder().encode


class Outlet(Protocol):
    """A sink for lines. Calls after its end have no effect."""

    is_poll: bool

    @property
    def is_lost(self) -> bool: ...

    @property
    def buffered(self) -> int:
        """Bytes written that have not been sent."""

    def write(self, lines: bytes) -> None: ...

    def drop_queued(self) -> None:
        """Drop queued output except a partly sent line."""

    def end(self) -> None:
        """End this outlet; the client may request another."""

    def abort(self) -> None: ...


def message_line(messages: list[bytes]) -> bytes:
    """Messages, each a frame's payload, as one line."""
    return b"a%b\n" % _encode([message.decode() for message in messages])


def close_line(code: int, reason: str) -> bytes:
    return b"c%b\n" % _encode([code, reason])


class XhrLink:
    """A `Link` whose peer fetches its output over HTTP. `forget` is called once, at the end."""

    descriptor = -1

    def __init__(self, peer: str, now: Callable[[], float], forget: Callable[[], None]) -> None:
        self.handler: Handler
        self.peer = peer
        self._now = now
        self._forget = forget
        self._outlet: Outlet | None = None
        self._is_opened = False
        self.has_returned = False
        """Whether the client has sent or requested anything since it opened the session."""
        self._messages: list[bytes] = []
        self._waiting_bytes = 0
        self._pulse = b""
        self._close = b""
        self._units = 0
        """UTF-16 code units sent through the current stream."""
        self._written_at = now()
        self._is_behind = False
        self._is_finishing = False
        self._is_closed = False

    # The port

    @property
    def buffered(self) -> int:
        return self._waiting_bytes + (0 if self._outlet is None else self._outlet.buffered)

    def write(self, data: bytes) -> None:
        """Queue whole frames written by the server. WebSocket pings are skipped; the protocol's own are sent."""
        if self._is_closed or self._is_finishing:
            return
        for opcode, payload in server_frames(data):
            if opcode == TEXT:
                self._messages.append(payload)
                self._waiting_bytes += len(payload)
            elif opcode == CLOSE:
                code = int.from_bytes(payload[:2], "big") if payload else 1_000
                self._close = close_line(code, payload[2:].decode())
        self._flush()

    def drop_queued(self) -> None:
        self._messages.clear()
        self._waiting_bytes = 0
        if self._outlet is not None:
            self._outlet.drop_queued()

    def pause(self) -> None:
        """Nothing to pause: input arrives in separate requests, and the connection bounds what it buffers."""

    def resume(self) -> None: ...

    def finish(self) -> None:
        if self._is_closed:
            return
        self._is_finishing = True
        self._flush()
        if self._outlet is None and not self._messages and not self._close:
            self.abort()  # a poll has just ended with the last of it

    def abort(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        self.drop_queued()
        outlet, self._outlet = self._outlet, None
        if outlet is not None:
            outlet.abort()
        self._forget()
        self.handler.on_closed(-1)

    # Outlets

    @property
    def outlet(self) -> Outlet | None:
        """The current outlet; None between two requests of the client."""
        return self._outlet

    def attach(self, outlet: Outlet) -> None:
        """Send lines through `outlet` from now on; the previous one ends."""
        self.has_returned = self._is_opened
        former = self._outlet
        if former is not None:
            self._part()
            former.end()
        self._outlet = outlet
        self._units = 0
        self._written_at = self._now()
        if outlet.is_lost:
            self.lost(outlet)
            return
        self._flush()
        if self._outlet is outlet and not self._units:
            outlet.write(b"")  # sends the head, which shows intermediaries that the request is answered

    def lost(self, outlet: Outlet) -> None:
        """The client dropped `outlet`: it has left, as pusher-js does, or has lost what was in flight."""
        if outlet is self._outlet:
            self.abort()

    def outlet_backlogged(self, outlet: Outlet) -> None:
        if outlet is self._outlet and not self._is_behind:
            self._is_behind = True
            self.handler.on_backlog(-1)

    def outlet_drained(self, outlet: Outlet) -> None:
        if outlet is self._outlet and self._is_behind:
            self._is_behind = False
            self.handler.on_drained()

    def confirm_alive(self) -> None:
        """Answer a client's liveness check."""
        self._pulse = _ALIVE
        self._flush()

    def sweep(self, now: float) -> None:
        """Keep an idle outlet alive; end the connection of a client that does not request again."""
        if self._is_closed:
            return
        if self._outlet is None:
            if now - self._written_at > (REOPENED_S if self.has_returned else FIRST_REOPENED_S):
                self.abort()
        elif now - self._written_at >= HELD_S and not self._is_behind:
            self._pulse = _HEARTBEAT_LINE
            self._flush()

    # Lines

    def _flush(self) -> None:
        """Write everything queued as one line, so that a full stream holds no unread line."""
        outlet = self._outlet
        if outlet is None or self._is_closed:
            return
        lines = b"" if self._is_opened else OPEN_LINE
        if self._messages:
            lines += message_line(self._messages)
            self._messages.clear()
            self._waiting_bytes = 0
        else:
            lines += self._pulse
        self._pulse = b""
        self._units += _units(lines)
        is_full = self._units > FULL_UNITS and not outlet.is_poll
        if self._close and not is_full:
            lines += self._close
            self._close = b""
        if lines:
            self._is_opened = True
            self._written_at = self._now()
            outlet.write(lines)
        if self._outlet is outlet and (self._is_finishing or is_full or (lines and outlet.is_poll)):
            self._part()
            outlet.end()
        if self._is_finishing and not self._close:
            self.abort()

    def _part(self) -> None:
        """Wait for the next outlet."""
        if self._outlet is not None:
            self.outlet_drained(self._outlet)
        self._outlet = None
        self._written_at = self._now()


def _units(lines: bytes) -> int:
    """Length in UTF-16 code units, as in JavaScript."""
    return len(lines) if lines.isascii() else len(lines.decode().encode("utf-16-le")) // 2
