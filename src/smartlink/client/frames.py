"""The wire, as a client sees it: server frames decoded, client frames encoded.

`decode` never raises: a server may send nonsense, and that must end nothing but the frame.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

__all__ = ["PING", "PONG", "Frame", "client_event", "decode", "fields_of", "sign_in", "subscribe", "unsubscribe"]

_encode = msgspec.json.Encoder().encode

PING: Final = '{"event":"pusher:ping","data":{}}'
PONG: Final = '{"event":"pusher:pong","data":{}}'


class Frame(msgspec.Struct):
    """A server frame. `data` is JSON text in most frames, plain JSON in errors and client events."""

    event: str
    channel: str | None = None
    data: Any = None
    user_id: str | int | None = None


_decoder = msgspec.json.Decoder(Frame)


def decode(text: bytes) -> Frame | None:
    """Decode one frame; None for anything else. Never raises."""
    try:
        return _decoder.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None


def fields_of(data: Any) -> dict[str, Any]:
    """The object in a frame's `data`, whether as JSON text or plain; empty for anything else. Never raises."""
    if isinstance(data, str):
        try:
            data = msgspec.json.decode(data)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            return {}
    return data if isinstance(data, dict) else {}


def _request(event: str, data: dict[str, Any]) -> str:
    return _encode({"event": event, "data": data}).decode()


def subscribe(channel: str, auth: str | None = None, channel_data: str | None = None) -> str:
    """`pusher:subscribe`; `channel_data` is the exact text that was signed."""
    data = {"channel": channel}
    if auth is not None:
        data["auth"] = auth
    if channel_data is not None:
        data["channel_data"] = channel_data
    return _request("pusher:subscribe", data)


def unsubscribe(channel: str) -> str:
    """`pusher:unsubscribe`."""
    return _request("pusher:unsubscribe", {"channel": channel})


def sign_in(auth: str, user_data: str) -> str:
    """`pusher:signin`; `user_data` is the exact text that was signed."""
    return _request("pusher:signin", {"auth": auth, "user_data": user_data})


def client_event(name: str, channel: str, data: Any) -> str:
    """A `client-*` event. Raises TypeError for data without a form in JSON."""
    return _encode({"event": name, "channel": channel, "data": data}).decode()
