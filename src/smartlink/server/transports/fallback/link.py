"""The link of a client over HTTP: what is written to it waits for an outlet, and leaves as lines.

An outlet is the answer to one request of the client: a stream, which carries lines until it is full, or a poll, which
is over with the first. Between two of them lines wait here. Lines, as pusher-js reads them: `o` opens, `a["…",…]` are
messages, `a[]` is a sign of life, `h` a heartbeat, `c[code,"reason"]` the end.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import msgspec

from smartlink.server.net.framing import CLOSE, TEXT, server_frames
from smartlink.server.net.link import Handler

__all__ = ["HELD_S", "OPEN_LINE", "Outlet", "XhrLink", "close_line", "message_line"]

FULL_UNITS = 262_144
"""UTF-16 code units of a stream beyond which pusher-js drops it and asks for the next."""
HELD_S = 25.0
"""How long an outlet may carry nothing: proxies cut what is silent for longer."""
REOPENED_S = 10.0
"""How long a client may take to ask again after a poll was answered or a stream was full."""
FIRST_REOPENED_S = 5.0
"""The same for one of whom nothing was heard since it opened the session."""

OPEN_LINE = b"o\n"
_HEARTBEAT_LINE = b"h\n"
_SIGN_OF_LIFE = b"a[]\n"

_encode = msgspec.json.Encoder().encode


class Outlet(Protocol):
    """Where lines leave. After its end nothing has an effect."""

    is_poll: bool

    @property
    def is_lost(self) -> bool: ...

    @property
    def buffered(self) -> int:
        """Bytes that were written and have not left."""

    def write(self, lines: bytes) -> None: ...

    def drop_queued(self) -> None:
        """Forget what waits, but for what has been begun."""

    def end(self) -> None:
        """Nothing more comes on this one; the client may ask for another."""

    def abort(self) -> None: ...


def message_line(messages: list[bytes]) -> bytes:
    """Messages, each a frame's payload, as one line."""
    return b"a%b\n" % _encode([message.decode() for message in messages])


def close_line(code: int, reason: str) -> bytes:
    return b"c%b\n" % _encode([code, reason])


class XhrLink:
    """A `Link` whose peer asks over HTTP for what is written. `forget` is called once, at the end."""

    descriptor = -1

    def __init__(self, peer: str, now: Callable[[], float], forget: Callable[[], None]) -> None:
        self.handler: Handler
        self.peer = peer
        self._now = now
        self._forget = forget
        self._outlet: Outlet | None = None
        self._is_opened = False
        self.has_returned = False
        """Whether the client has asked or sent anything since it opened the session."""
        self._messages: list[bytes] = []
        self._waiting_bytes = 0
        self._pulse = b""
        self._close = b""
        self._units = 0
        """UTF-16 code units that went through the present stream."""
        self._written_at = now()
        self._is_behind = False
        self._is_finishing = False
        self._is_closed = False

    # The port

    @property
    def buffered(self) -> int:
        return self._waiting_bytes + (0 if self._outlet is None else self._outlet.buffered)

    def write(self, data: bytes) -> None:
        """Take whole frames as the server writes them. Pings of the framing are not told: the protocol's own are."""
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
        """What the client sends comes in requests of its own; the connection bounds how much it holds meanwhile."""

    def resume(self) -> None: ...

    def finish(self) -> None:
        if not self._is_closed:
            self._is_finishing = True
            self._flush()

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
        """Where lines leave now; None between two requests of the client."""
        return self._outlet

    def attach(self, outlet: Outlet) -> None:
        """Let lines leave through `outlet` from now on; the one before ends."""
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
            outlet.write(b"")  # its head: what lies between sees that it is answered

    def lost(self, outlet: Outlet) -> None:
        """The client cut off `outlet`: it has left, as pusher-js does, or it has lost what was on the way."""
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

    def sign_of_life(self) -> None:
        """Answer a client that wants to know whether the connection stands."""
        self._pulse = _SIGN_OF_LIFE
        self._flush()

    def sweep(self, now: float) -> None:
        """Keep a silent outlet alive; end the connection of a client that does not ask again."""
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
        """Write what waits as one line, so that a full stream holds no line the client has not read."""
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
    """Length as JavaScript counts it: in UTF-16 code units."""
    return len(lines) if lines.isascii() else len(lines.decode().encode("utf-16-le")) // 2
