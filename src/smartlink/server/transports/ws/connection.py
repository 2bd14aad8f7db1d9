"""One WebSocket: reads its frames, checks them and joins them into messages. Source: RFC 6455, section 5."""

from __future__ import annotations

from typing import final

from smartlink.protocol.errors import Code
from smartlink.protocol.session import Session
from smartlink.server.apps.base import App
from smartlink.server.core.client import LINGER_S, ClientConnection, ClientSettings
from smartlink.server.core.client_sessions import SessionToken
from smartlink.server.net.framing import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    ClientFrame,
    PartialText,
    WireFault,
    close_frame,
    control_frame,
    is_valid_close_code,
    parse_frame,
)
from smartlink.server.net.link import Link
from smartlink.server.runtime.pace import FRAMES_AT_ONCE

__all__ = ["WebSocket"]


@final
class WebSocket(ClientConnection):
    """A client over a WebSocket, from the upgrade until the socket closes."""

    __slots__ = ("_buffer", "_is_held", "_is_lost", "_is_paced", "_pongs", "_text")

    def __init__(
        self, link: Link, app: App, session: Session, shared: ClientSettings, token: SessionToken | None = None
    ) -> None:
        super().__init__(link, app, session, shared, token)
        self._buffer: bytearray | None = None
        self._text: PartialText | None = None
        self._pongs = b""
        """Replies to consecutive pings, written together."""
        self._is_paced = False
        """More has arrived than one turn may handle: the rest is buffered, and reading is paused."""
        self._is_held = False
        """Its turn came while an earlier message waits for an engine: it continues after that."""
        self._is_lost = False
        """Input is ignored: the framing was violated, or the peer has sent its close."""

    def on_bytes(self, data: bytes | bytearray) -> None:
        if self._is_lost:
            return
        if self.is_open:
            self.note_activity()
        if self._buffer is not None:
            self._buffer += data
            data = self._buffer
        if not self._is_paced:
            self._take(data)

    def take_turn(self) -> None:
        """Handle what was left for this turn."""
        if self._waiting is not None:
            self._is_held = True
            return
        self._is_paced = False
        if self._buffer is not None and not self._is_lost:
            self._take(self._buffer)
        if not self._is_paced and self._waiting is None:
            self._link.resume()

    def on_closed(self, descriptor: int) -> None:
        self._is_lost = True
        self._buffer = None
        super().on_closed(descriptor)

    def _take(self, data: bytes | bytearray) -> None:
        try:
            position = self._read(data)
        except WireFault as fault:
            self._is_lost = True
            self._buffer = None
            self._write_pongs()
            self.close(fault.code, fault.reason)
            return
        self._write_pongs()
        if data is self._buffer:
            del self._buffer[:position]
            if not self._buffer:
                self._buffer = None
        elif position < len(data) and not self._is_lost:
            self._buffer = bytearray(data[position:])
        if self._is_paced:
            self._link.pause()
            self._shared.pace.request_turn(self)

    def _read_on(self) -> None:
        if self._is_held:
            self._is_held = False
            self._shared.pace.request_turn(self)
        elif not self._is_paced:
            super()._read_on()

    # Frames

    def _read(self, data: bytes | bytearray) -> int:
        """Handle the whole frames in `data`, as many as one turn may; return where they end. Raises WireFault."""
        position = 0
        left = FRAMES_AT_ONCE
        while not self._is_lost and (frame := parse_frame(data, position, self.app.max_message_bytes)) is not None:
            position = frame.end
            if self.is_open:
                self._on_frame(frame)
            elif frame.opcode == CLOSE:
                # The answer to our close: everything after it is ignored.
                self._is_lost = True
                self._link.abort()
            left -= 1
            if not left and position < len(data):
                self._is_paced = not self._is_lost
                return position
        if self.is_open and len(data) - position >= 2:
            self._check_ahead(data, position)
        return position

    def _on_frame(self, frame: ClientFrame) -> None:
        opcode = frame.opcode
        if self._pongs and opcode != PING:
            self._write_pongs()
        if opcode == TEXT and frame.is_final:
            if self._text is not None:
                self._expect(opcode)
                self._text = None
            self.receive_text(frame.payload)
        elif opcode == PING:
            self._pongs += control_frame(PONG, frame.payload)
        elif opcode == PONG:
            return
        elif opcode == CLOSE:
            self._on_close(frame.payload)
        elif opcode == BINARY:
            raise WireFault(Code.UNSUPPORTED_DATA, "Only text messages are supported")
        else:
            self._on_fragment(frame)

    def _write_pongs(self) -> None:
        if self._pongs:
            pongs, self._pongs = self._pongs, b""
            self.write(pongs)

    def _on_fragment(self, frame: ClientFrame) -> None:
        self._expect(frame.opcode)
        text = self._text = self._text or PartialText()
        text.add(frame, self.app.max_message_bytes)
        if frame.is_final:
            self._text = None
            self.receive_text(text.join())

    def _check_ahead(self, data: bytes | bytearray, position: int) -> None:
        """Refuse an incomplete frame that is already invalid."""
        opcode = data[position] & 0x0F
        if opcode in (TEXT, CONTINUATION):
            self._expect(opcode)
            self._text = self._text or PartialText()
            self._text.check_partial(data, position)

    def _expect(self, opcode: int) -> None:
        """Check that a text begins or continues only where it may. Raises WireFault."""
        is_fragmented = self._text is not None and self._text.is_fragmented
        if is_fragmented and opcode == TEXT:
            raise WireFault(Code.PROTOCOL_ERROR, "New message before the end of a fragmented one")
        if not is_fragmented and opcode == CONTINUATION:
            raise WireFault(Code.PROTOCOL_ERROR, "Continuation without a message to continue")

    def _on_close(self, payload: bytes) -> None:
        code: int | None = None
        if payload:
            code = int.from_bytes(payload[:2], "big")
            if len(payload) < 2 or not is_valid_close_code(code):
                raise WireFault(Code.PROTOCOL_ERROR, "Invalid close code")
            try:
                payload[2:].decode()
            except UnicodeDecodeError:
                raise WireFault(Code.INVALID_TEXT, "Text must be UTF-8") from None
        self._is_lost = True
        self._link.write(close_frame(code))
        self._leave(self.descriptor)
        self._link.finish()

    def _leave(
        self, descriptor: int, linger_s: float = LINGER_S, code: int = 0, reason: str = "", *, is_lost: bool = False
    ) -> None:
        super()._leave(descriptor, linger_s, code, reason, is_lost=is_lost)
        self._text = None
