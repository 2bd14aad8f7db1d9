"""One WebSocket: its frames read, checked and joined into whole messages. Source: RFC 6455, section 5."""

from __future__ import annotations

from typing import final

from smartlink.protocol.errors import Code
from smartlink.protocol.session import Session
from smartlink.server.apps.base import App
from smartlink.server.client import LINGER_S, ClientConnection, ClientSettings
from smartlink.server.framing import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    ClientFrame,
    WireFault,
    close_frame,
    control_frame,
    is_valid_close_code,
    parse_frame,
)
from smartlink.server.link import Link

__all__ = ["WebSocket"]

MAX_FRAGMENTS = 1_024


@final
class WebSocket(ClientConnection):
    """A client over a WebSocket, from the upgrade to the end of the socket."""

    __slots__ = ("_buffer", "_fragments")

    def __init__(self, link: Link, app: App, session: Session, shared: ClientSettings) -> None:
        super().__init__(link, app, session, shared)
        self._buffer = b""
        self._fragments: list[bytes] | None = None

    def on_bytes(self, data: bytes) -> None:
        if not self.is_open:
            self._on_bytes_after_close(data)
            return
        self.heard()
        if self._buffer:
            data = self._buffer + data
        position = 0
        try:
            while self.is_open:
                frame = parse_frame(data, position, self.app.max_message_bytes)
                if frame is None:
                    break
                position = frame.end
                self._on_frame(frame)
        except WireFault as fault:
            self.close(fault.code, fault.reason)
        self._buffer = data[position:]

    # Frames

    def _on_frame(self, frame: ClientFrame) -> None:
        opcode = frame.opcode
        if opcode == TEXT and frame.is_final:
            if self._fragments is not None:
                raise WireFault(Code.PROTOCOL_ERROR, "A new message inside a fragmented one")
            self.receive_text(frame.payload)
        elif opcode == PING:
            self.write(control_frame(PONG, frame.payload))
        elif opcode == PONG:
            return
        elif opcode == CLOSE:
            self._on_close(frame.payload)
        elif opcode == BINARY:
            raise WireFault(Code.UNSUPPORTED_DATA, "This protocol is text")
        else:
            self._on_fragment(frame)

    def _on_fragment(self, frame: ClientFrame) -> None:
        if frame.opcode == CONTINUATION:
            if self._fragments is None:
                raise WireFault(Code.PROTOCOL_ERROR, "A continuation of nothing")
        elif self._fragments is not None:
            raise WireFault(Code.PROTOCOL_ERROR, "A new message inside a fragmented one")
        else:
            self._fragments = []
        fragments = self._fragments
        fragments.append(frame.payload)
        if len(fragments) > MAX_FRAGMENTS or sum(map(len, fragments)) > self.app.max_message_bytes:
            raise WireFault(Code.TOO_BIG, f"Message larger than {self.app.max_message_bytes} bytes or too fragmented")
        message = b"".join(fragments)
        if frame.is_final:
            self._fragments = None
            self.receive_text(message)
            return
        try:
            message.decode()
        except UnicodeDecodeError as error:
            # A character may be cut in two where the fragment ends, and only there.
            if error.reason != "unexpected end of data":
                raise WireFault(Code.INVALID_TEXT, "Text must be UTF-8") from None

    def _on_close(self, payload: bytes) -> None:
        code: int | None = None
        if payload:
            code = int.from_bytes(payload[:2], "big")
            if len(payload) < 2 or not is_valid_close_code(code):
                raise WireFault(Code.PROTOCOL_ERROR, "Not a close code that may be sent")
            try:
                payload[2:].decode()
            except UnicodeDecodeError:
                raise WireFault(Code.INVALID_TEXT, "Text must be UTF-8") from None
        self._link.write(close_frame(code))
        self._leave(self.descriptor)
        self._link.finish()

    def _leave(self, descriptor: int, linger_s: float = LINGER_S) -> None:
        super()._leave(descriptor, linger_s)
        self._fragments = None

    def _on_bytes_after_close(self, data: bytes) -> None:
        """Nothing has an effect any more; the peer's close frame, or its end, ends the socket."""
        self._buffer = (self._buffer + data)[-256:]
        try:
            position = 0
            while (frame := parse_frame(self._buffer, position, self.app.max_message_bytes)) is not None:
                position = frame.end
                if frame.opcode == CLOSE:
                    self._link.abort()
                    return
        except WireFault:
            self._link.abort()
