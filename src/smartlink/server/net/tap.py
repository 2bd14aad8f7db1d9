"""Shows the frames of one connection, with secrets removed, for `--debug`."""

from __future__ import annotations

import re
from collections.abc import Callable

from smartlink.server.net.framing import WireFault, parse_frame
from smartlink.server.net.link import Handler, Link

__all__ = ["Tap", "redact"]

MAX_SHOWN = 2_000
MAX_HELD = 1_048_576
_TEXT, _CLOSE = 1, 8
_NAMES = {0: "continued", 1: "text", 2: "binary", 8: "close", 9: "ping", 10: "pong"}
_SECRETS = re.compile(
    r"""((?:\\*["'])(?:auth|auth_signature|signature|shared_secret|secret|token|password)(?:\\*["'])\s*:\s*)"""
    r"""(\\*["'])(?:(?!\2).)*\2""",
    re.DOTALL,
)
_QUERY_SECRETS = re.compile(r"\b(auth_signature|auth|token|signature)=[^&\s]*")

_SESSION = re.compile(r"(/app/[^/\s]+/[0-9]{1,3}/)[0-9A-Za-z]{8}(?=/xhr)")
"""A session of the HTTP fallback: this part of its URL is enough to hijack it."""


def redact(text: str) -> str:
    """Remove values that sign or grant access from `text`, also inside nested JSON."""
    return _SESSION.sub(r"\1…", _QUERY_SECRETS.sub(r"\1=…", _SECRETS.sub(r"\1\2…\2", text)))


class Tap:
    """Sits between a link and its handler and reports the frames. Has no descriptor, so that all writes pass here.

    Its creator sets `handler`, and sets the tap as the link's handler.
    """

    descriptor = -1

    def __init__(self, link: Link, show: Callable[[str], None]) -> None:
        self._link = link
        self._show = show
        self._name = link.peer
        self._in = self._out = b""
        self._is_upgraded = False
        self.handler: Handler

    # Link side, as seen by the handler

    @property
    def buffered(self) -> int:
        return self._link.buffered

    @property
    def peer(self) -> str:
        return self._link.peer

    def write(self, data: bytes) -> None:
        if self._is_upgraded:
            self._out = self._frames("→", self._out + data, is_masked=False)
        else:
            head, _, rest = data.partition(b"\r\n\r\n")
            self._print("→", "http", head.partition(b"\r\n")[0].decode("latin-1"))
            self._is_upgraded = head.startswith(b"HTTP/1.1 101")
            if self._is_upgraded:
                self._out = self._frames("→", rest, is_masked=False)
        self._link.write(data)

    def drop_queued(self) -> None:
        self._link.drop_queued()

    def pause(self) -> None:
        self._link.pause()

    def resume(self) -> None:
        self._link.resume()

    def finish(self) -> None:
        self._link.finish()

    def abort(self) -> None:
        self._link.abort()

    # Handler side, as seen by the link

    def on_bytes(self, data: bytes) -> None:
        if self._is_upgraded:
            self._in = self._frames("←", self._in + data, is_masked=True)
        else:
            self._print("←", "http", data.partition(b"\r\n")[0].decode("latin-1"))
        self.handler.on_bytes(data)

    def on_closed(self, descriptor: int) -> None:
        self._print("·", "end", "")
        self.handler.on_closed(-1)

    def on_backlog(self, descriptor: int) -> None:
        self.handler.on_backlog(-1)

    def on_drained(self) -> None:
        self.handler.on_drained()

    def _frames(self, arrow: str, data: bytes, *, is_masked: bool) -> bytes:
        """Report each whole frame. Returns the rest."""
        position = 0
        try:
            while (frame := _parse(data, position, is_masked=is_masked)) is not None:
                opcode, payload, position = frame
                text = payload.decode("utf-8", "replace")
                if opcode == _CLOSE and len(payload) >= 2:
                    text = f"{int.from_bytes(payload[:2], 'big')} {payload[2:].decode('utf-8', 'replace')}"
                self._print(arrow, _NAMES.get(opcode, str(opcode)), text)
        except WireFault:
            return b""
        return data[position:] if len(data) - position <= MAX_HELD else b""

    def _print(self, arrow: str, kind: str, text: str) -> None:
        text = redact(text)
        self._show(f"{arrow} {self._name} {kind} {text[:MAX_SHOWN]}{'…' if len(text) > MAX_SHOWN else ''}")


def _parse(data: bytes, position: int, *, is_masked: bool) -> tuple[int, bytes, int] | None:
    """Opcode, payload and end of the frame at `position`; None if it is incomplete. Raises WireFault."""
    if is_masked:
        frame = parse_frame(data, position, MAX_HELD)
        return None if frame is None else (frame.opcode, frame.payload, frame.end)
    if len(data) < position + 2:
        return None
    size, start = data[position + 1] & 0x7F, position + 2
    if size > 125:
        width = 2 if size == 126 else 8
        size, start = int.from_bytes(data[start : start + width], "big"), start + width
    if len(data) < start + size:
        return None
    return data[position] & 0x0F, data[start : start + size], start + size
