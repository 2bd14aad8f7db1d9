"""WebSocket frames as bytes: parses the client's, builds the server's. Pure. Source: RFC 6455, section 5."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from typing import final

import msgspec

from smartlink.protocol.errors import Code

__all__ = [
    "BINARY",
    "CLOSE",
    "CONTINUATION",
    "PING",
    "PONG",
    "TEXT",
    "PartialText",
    "WireFault",
    "close_frame",
    "control_frame",
    "is_valid_close_code",
    "parse_frame",
    "server_frames",
    "text_frame",
]

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
MAX_FRAGMENTS = 1_024
_KNOWN = frozenset({CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG})


@final
class WireFault(Exception):
    """The peer violated the framing; the connection ends with `code`."""

    def __init__(self, code: Code, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class ClientFrame(msgspec.Struct, frozen=True, gc=False):
    """One unmasked client frame; `end` is the offset of the next one."""

    opcode: int
    is_final: bool
    payload: bytes
    end: int


def text_frame(payload: bytes) -> bytes:
    """A text frame for any number of subscribers: server frames are not masked."""
    size = len(payload)
    if size < 126:
        return b"\x81%c%b" % (size, payload)
    if size < 65_536:
        return b"\x81\x7e%b%b" % (size.to_bytes(2, "big"), payload)
    return b"\x81\x7f%b%b" % (size.to_bytes(8, "big"), payload)


def control_frame(opcode: int, payload: bytes = b"") -> bytes:
    """A ping or pong; `payload` is at most 125 bytes."""
    return b"%c%c%b" % (0x80 | opcode, len(payload), payload)


def close_frame(code: int | None, reason: str = "") -> bytes:
    """A close frame, without a code if None. The reason is cut to what a control frame can hold."""
    if code is None:
        return control_frame(CLOSE)
    return control_frame(CLOSE, code.to_bytes(2, "big") + reason.encode()[:123].decode("utf-8", "ignore").encode())


def server_frames(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Opcode and payload of each frame in `data`, which holds whole frames written by this module."""
    position = 0
    while position < len(data):
        size, body = data[position + 1], position + 2
        if size > 125:
            body = position + (4 if size == 126 else 10)
            size = int.from_bytes(data[position + 2 : body], "big")
        yield data[position] & 0x0F, data[body : body + size]
        position = body + size


def is_valid_close_code(code: int) -> bool:
    """Whether a peer may send this code. Source: RFC 6455, section 7.4, and the IANA registry."""
    return 1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999


def parse_frame(data: bytes | bytearray, start: int, max_payload: int) -> ClientFrame | None:
    """The frame that begins at `start`, or None if it is incomplete. Raises WireFault.

    A length over `max_payload` is refused by its header, before anything is buffered.
    """
    available = len(data) - start
    if available < 2:
        return None
    first, second = data[start], data[start + 1]
    opcode, size = first & 0x0F, second & 0x7F
    if first & 0x70 or opcode not in _KNOWN:
        raise WireFault(Code.PROTOCOL_ERROR, "Reserved bits or unknown opcode")
    if not second & 0x80:
        raise WireFault(Code.PROTOCOL_ERROR, "Client frames must be masked")
    if opcode >= CLOSE and (size > 125 or not first & 0x80):
        raise WireFault(Code.PROTOCOL_ERROR, "A control frame must not be fragmented or exceed 125 bytes")
    head = 2
    if size > 125:
        head = 4 if size == 126 else 10
        if available < head:
            return None
        size = int.from_bytes(data[start + 2 : start + head], "big")
        if size < (126 if head == 4 else 65_536) or size >> 63:
            raise WireFault(Code.PROTOCOL_ERROR, "Payload length must use the shortest encoding")
    if size > max_payload and opcode < CLOSE:
        raise WireFault(Code.TOO_BIG, f"Message larger than {max_payload} bytes")
    body = start + head + 4
    end = body + size
    if len(data) < end:
        return None
    return ClientFrame(opcode, first >= 0x80, _unmask(data[body:end], data[body - 4 : body]), end)


@final
class PartialText:
    """A text message that is still incomplete: whole fragments, and the checked part of the current frame.

    Invalid UTF-8 is refused at its first wrong byte, with WireFault 1007: RFC 6455, section 8.1.
    """

    __slots__ = ("_decoder", "_fragments", "_seen", "_size")

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._fragments: list[bytes] = []
        self._seen = 0
        self._size = 0

    @property
    def is_fragmented(self) -> bool:
        """Whether a whole fragment has arrived, so that a continuation must follow."""
        return bool(self._fragments)

    def check_partial(self, data: bytes | bytearray, start: int) -> None:
        """Check the received part of the incomplete frame that begins at `start`. Raises WireFault."""
        length = data[start + 1] & 0x7F
        body = start + (6 if length < 126 else 8 if length == 126 else 14)
        turn = self._seen % 4
        mask = data[body - 4 : body]
        self._check(_unmask(data[body + self._seen :], mask[turn:] + mask[:turn]))

    def add(self, frame: ClientFrame, max_bytes: int) -> None:
        """Add a whole fragment. Raises WireFault, also if the total size or the number of fragments is too large."""
        self._fragments.append(frame.payload)
        self._size += len(frame.payload)
        if len(self._fragments) > MAX_FRAGMENTS or self._size > max_bytes:
            raise WireFault(Code.TOO_BIG, f"Message larger than {max_bytes} bytes or too fragmented")
        self._check(frame.payload[self._seen :])
        self._seen = 0

    def join(self) -> bytes:
        """The whole message. The caller checks that it does not end within a character."""
        return b"".join(self._fragments)

    def _check(self, piece: bytes) -> None:
        self._seen += len(piece)
        try:
            self._decoder.decode(piece)
            begun = self._decoder.getstate()[0]
            if len(begun) == 2 and begun[0] == 0xED:
                # Half a surrogate: Python's decoder waits for a third byte, though no character starts this way.
                begun.decode()
        except UnicodeDecodeError as error:
            if error.reason != "unexpected end of data":
                raise WireFault(Code.INVALID_TEXT, "Text must be UTF-8") from None


def _unmask(payload: bytes | bytearray, mask: bytes | bytearray) -> bytes:
    size = len(payload)
    if not size:
        return b""
    key = int.from_bytes((mask * (size // 4 + 1))[:size], "little")
    return (int.from_bytes(payload, "little") ^ key).to_bytes(size, "little")
