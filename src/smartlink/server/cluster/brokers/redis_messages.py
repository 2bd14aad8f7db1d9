"""What travels between nodes over Redis: messages, and their places in streams.

On the bus: `{"v":1,"i":"<id in the stream>","x":"<excluded recipients>","f":<the frame>}`, for controls
`{"v":1,"i":…,"c":{…}}`; joins and leaves carry their number as `"s"`, events that may be replayed `"e":true`, and those
whose receipt is to be reported their id as `"r"`. Live publications have no id in the stream and are not stored. Those
in streams may begin with fields of their own (`redis_scripts.PUBLISH`).
"""

from __future__ import annotations

import msgspec

from smartlink.server.cluster.brokers.base import Control, Publication, is_left_out

__all__ = [
    "FAULTS",
    "NEWS",
    "Entries",
    "Message",
    "as_position",
    "body_of",
    "control_in",
    "decode",
    "decode_beat",
    "id_at",
    "parsed_id",
    "publication_in",
]

VERSION = 1
_POSITIONS_SINCE_MS = 1_577_836_800_000
"""2020-01-01, in ms since 1970."""
_SERIAL_BITS = 14
NEWS = b'{"v":1,"n":true}'
"""Announces that the channel's stream holds more."""


class _ControlBody(msgspec.Struct):
    app_id: str
    action: str
    target: str
    data: str = ""


class Message(msgspec.Struct):
    v: int
    i: str = ""
    x: str | None = None
    s: int = 0
    f: msgspec.Raw = msgspec.Raw()
    c: _ControlBody | None = None
    n: bool = False
    e: bool = False
    r: str | None = None
    t: float = 0.0
    p: str | None = None


class _Beat(msgspec.Struct):
    v: int
    t: int


_decode = msgspec.json.Decoder(Message).decode
decode_beat = msgspec.json.Decoder(_Beat).decode
Entries = list[tuple[bytes, tuple[bytes, bytes]]]
"""From a stream: ids, and the single field of each."""
FAULTS = (msgspec.MsgspecError, ValueError, RecursionError)


def parsed_id(entry_id: str) -> tuple[int, int]:
    """A stream id as sortable numbers: milliseconds, and a serial number within them. Raises ValueError."""
    ms, dash, number = entry_id.partition("-")
    if not dash or not (ms.isascii() and ms.isdigit() and number.isascii() and number.isdigit()):
        raise ValueError("invalid id")
    return int(ms[:20]), int(number[:20])


def as_position(ms: int, number: int) -> int:
    """A stream id as one number below 2**53 until 2037, exact in JSON; 0 for one that does not fit.

    More than 16,384 ids in a millisecond exist only if the clock of Redis was set back.
    """
    return (ms - _POSITIONS_SINCE_MS << _SERIAL_BITS) + number if number < 1 << _SERIAL_BITS else 0


def id_at(position: int) -> str:
    """The stream id at a position."""
    return f"{(position >> _SERIAL_BITS) + _POSITIONS_SINCE_MS}-{position & (1 << _SERIAL_BITS) - 1}"


def decode(payload: bytes) -> Message:
    """Decode a message. Raises one of `FAULTS`, as the functions below do for what no node of ours could have sent."""
    message = _decode(payload)
    if message.v != VERSION:
        raise ValueError("unknown version")
    return message


def control_in(message: Message) -> Control:
    body = message.c
    if body is None:
        raise ValueError("invalid control")
    return Control(body.app_id, body.action, body.target, body.data)


def publication_in(message: Message, app_id: str, channel: str) -> Publication:
    """Return the publication on a channel."""
    if not bytes(message.f) or (message.x is not None and not is_left_out(message.x)):
        raise ValueError("invalid publication")
    frame = bytes(message.f)
    frame.decode()
    return Publication(
        app_id,
        channel,
        frame,
        message.x,
        version=message.s,
        position=as_position(*parsed_id(message.i)) if message.i and message.e else 0,
        report_id=message.r,
        trace=message.p,
        published_at=message.t,
    )


def body_of(publication: Publication | Control) -> bytes:
    """Encode what follows `{"v":1,"i":…,` in a message, and is stored in the stream."""
    if isinstance(publication, Control):
        body = _ControlBody(publication.app_id, publication.action, publication.target, publication.data)
        return b'"c":' + msgspec.json.encode(body) + b"}"
    left_out = publication.except_socket
    left_out_field = b"" if left_out is None else b'"x":' + msgspec.json.encode(left_out) + b","
    version_field = b'"s":%d,' % publication.version if publication.version else b""
    event_field = b"" if publication.retention is None else b'"e":true,'
    if publication.report_id is not None:
        event_field += b'"r":' + msgspec.json.encode(publication.report_id) + b","
    if publication.published_at:
        event_field += b'"t":%.6f,' % publication.published_at
    if publication.trace is not None:
        event_field += b'"p":' + msgspec.json.encode(publication.trace) + b","
    return left_out_field + version_field + event_field + b'"f":' + publication.frame + b"}"
