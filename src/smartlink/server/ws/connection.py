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
    TextInPieces,
    WireFault,
    close_frame,
    control_frame,
    is_valid_close_code,
    parse_frame,
)
from smartlink.server.link import Link

__all__ = ["WebSocket"]


@final
class WebSocket(ClientConnection):
    """A client over a WebSocket, from the upgrade to the end of the socket."""

    __slots__ = ("_buffer", "_is_lost", "_text")

    def __init__(self, link: Link, app: App, session: Session, shared: ClientSettings) -> None:
        super().__init__(link, app, session, shared)
        self._buffer: bytearray | None = None
        self._text: TextInPieces | None = None
        self._is_lost = False
        """Nothing that comes means anything any more: the framing broke, or the peer has said its close."""

    def on_bytes(self, data: bytes | bytearray) -> None:
        if self._is_lost:
            return
        if self.is_open:
            self.heard()
        if self._buffer is not None:
            self._buffer += data
            data = self._buffer
        try:
            position = self._read(data)
        except WireFault as fault:
            self._is_lost = True
            self._buffer = None
            self.close(fault.code, fault.reason)
            return
        if data is self._buffer:
            del self._buffer[:position]
            if not self._buffer:
                self._buffer = None
        elif position < len(data):
            self._buffer = bytearray(data[position:])

    # Frames

    def _read(self, data: bytes | bytearray) -> int:
        """Act on the whole frames in `data`; returns where they end. Raises WireFault."""
        position = 0
        while not self._is_lost and (frame := parse_frame(data, position, self.app.max_message_bytes)) is not None:
            position = frame.end
            if self.is_open:
                self._on_frame(frame)
            elif frame.opcode == CLOSE:
                # The answer to our close. Nothing else has an effect any more.
                self._is_lost = True
                self._link.abort()
        if self.is_open and len(data) - position >= 2:
            self._look_ahead(data, position)
        return position

    def _on_frame(self, frame: ClientFrame) -> None:
        opcode = frame.opcode
        if opcode == TEXT and frame.is_final:
            if self._text is not None:
                self._expect(opcode)
                self._text = None
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
        self._expect(frame.opcode)
        text = self._text = self._text or TextInPieces()
        text.add(frame, self.app.max_message_bytes)
        if frame.is_final:
            self._text = None
            self.receive_text(text.join())

    def _look_ahead(self, data: bytes | bytearray, position: int) -> None:
        """Refuse what is already wrong in a frame that is not whole."""
        opcode = data[position] & 0x0F
        if opcode in (TEXT, CONTINUATION):
            self._expect(opcode)
            self._text = self._text or TextInPieces()
            self._text.look_at(data, position)

    def _expect(self, opcode: int) -> None:
        """A text begins, or goes on, only where it may."""
        is_fragmented = self._text is not None and self._text.is_fragmented
        if is_fragmented and opcode == TEXT:
            raise WireFault(Code.PROTOCOL_ERROR, "A new message inside a fragmented one")
        if not is_fragmented and opcode == CONTINUATION:
            raise WireFault(Code.PROTOCOL_ERROR, "A continuation of nothing")

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
        self._is_lost = True
        self._link.write(close_frame(code))
        self._leave(self.descriptor)
        self._link.finish()

    def _leave(self, descriptor: int, linger_s: float = LINGER_S) -> None:
        super()._leave(descriptor, linger_s)
        self._text = None
