"""Client frames: one text frame decoded into an immutable record, or into what is wrong with it.

`decode` never raises. The caller acts on the record; a `Malformed` is answered with `pusher:error` and the connection
stays open.
"""

from __future__ import annotations

import re
from typing import Any, TypeAlias

import msgspec

from smartlink.protocol.errors import Code
from smartlink.protocol.names import MAX_EVENT_NAME_LENGTH, is_client_event, is_valid_event_name

__all__ = [
    "MAX_DEPTH",
    "ClientEventMessage",
    "Frame",
    "Malformed",
    "Ping",
    "Pong",
    "SignInMessage",
    "SubscribeMessage",
    "UnsubscribeMessage",
    "decode",
    "is_of_another_protocol",
    "parse",
]

MAX_DEPTH = 32
"""Maximum nesting of a client's JSON, counted in brackets."""

_OPENERS = frozenset({"command", "connect", "method", "topic", "type"})
"""Top-level keys of clients of other WebSocket protocols; none of them is in our envelope."""
_STRINGS = re.compile(r'"(?:[^"\\]|\\.)*"?', re.DOTALL)
_BRACKETS = re.compile(r"[\[{\]}]")
_decoder = msgspec.json.Decoder()


class SubscribeMessage(msgspec.Struct, frozen=True, gc=False):
    """`pusher:subscribe`. `auth` and `channel_data` are as received, because signatures cover the exact text."""

    channel: str
    auth: str | None = None
    channel_data: str | None = None


class UnsubscribeMessage(msgspec.Struct, frozen=True, gc=False):
    """`pusher:unsubscribe`."""

    channel: str


class SignInMessage(msgspec.Struct, frozen=True, gc=False):
    """`pusher:signin`. Both fields are as received, because the signature covers the exact `user_data`."""

    auth: str
    user_data: str


class Ping(msgspec.Struct, frozen=True, gc=False):
    """`pusher:ping`, to be answered with `pusher:pong`."""


class Pong(msgspec.Struct, frozen=True, gc=False):
    """`pusher:pong`: shows that the peer is alive; needs no answer."""


class ClientEventMessage(msgspec.Struct, frozen=True, gc=False):
    """A `client-*` event for the other subscribers. `data` is JSON text, ready to be put into a frame."""

    event: str
    channel: str
    data: str


class Malformed(msgspec.Struct, frozen=True, gc=False):
    """Not a valid frame; `reason` is sent back, with the channel it was for if it names one."""

    reason: str
    code: Code | None = None
    channel: str | None = None


Frame: TypeAlias = SubscribeMessage | UnsubscribeMessage | SignInMessage | Ping | Pong | ClientEventMessage | Malformed

_PING = Ping()
_PONG = Pong()


def decode(text: str | bytes) -> Frame:
    """Decode one text frame. Anything invalid becomes a `Malformed`; never raises."""
    envelope = parse(text)
    if not isinstance(envelope, dict):
        return Malformed('Not a JSON object: send {"event": …, "data": …}')
    event = envelope.get("event")
    if not isinstance(event, str) or not event:
        return Malformed('No event: "event" must be a non-empty string')
    if event == "pusher:ping":
        return _PING
    if event == "pusher:pong":
        return _PONG
    if event == "pusher:subscribe":
        return _subscribe(envelope.get("data"))
    if event == "pusher:unsubscribe":
        return _unsubscribe(envelope.get("data"))
    if event == "pusher:signin":
        return _sign_in(envelope.get("data"))
    if event.startswith("client-"):
        return _client_event(event, envelope)
    if len(event) > MAX_EVENT_NAME_LENGTH:
        return Malformed(f"Event name longer than {MAX_EVENT_NAME_LENGTH} characters")
    return Malformed(f"Unknown event {event[:60]!r}: clients send pusher:* requests and client-* events")


def parse(text: str | bytes) -> Any:
    """The JSON value, or None for invalid JSON or JSON nested deeper than `MAX_DEPTH`. Never raises."""
    if _is_too_deep(text):
        return None
    try:
        return _decoder.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError, ValueError):
        return None


def is_of_another_protocol(text: str | bytes) -> bool:
    """Whether a malformed first frame is typical of another protocol. Never raises."""
    newline = "\n" if isinstance(text, str) else b"\n"
    first = parse(text.split(newline, 1)[0])  # type: ignore[arg-type] # the separator is of the text's own type
    return isinstance(first, dict) and not _OPENERS.isdisjoint(first)


def _is_too_deep(text: str | bytes) -> bool:
    # Few opening brackets cannot be deep: decides the common case without a scan.
    if isinstance(text, bytes):
        if text.count(b"[") + text.count(b"{") <= MAX_DEPTH:
            return False
        text = text.decode("utf-8", "replace")
    elif text.count("[") + text.count("{") <= MAX_DEPTH:
        return False
    depth = 0
    for bracket in _BRACKETS.findall(_STRINGS.sub("", text)):
        depth += 1 if bracket in "[{" else -1
        if depth > MAX_DEPTH:
            return True
    return False


def _data_object(data: Any) -> dict[str, Any] | None:
    """`data` of a request: an object, or an object as JSON text, which some clients send."""
    if isinstance(data, str):
        data = parse(data)
    return data if isinstance(data, dict) else None


def _subscribe(data: Any) -> Frame:
    fields = _data_object(data)
    if fields is None:
        return Malformed('pusher:subscribe needs data: {"channel": …}')
    channel, auth, channel_data = fields.get("channel"), fields.get("auth"), fields.get("channel_data")
    if not isinstance(channel, str):
        return Malformed("pusher:subscribe needs a channel name in data.channel")
    if auth is not None and not isinstance(auth, str):
        return Malformed("pusher:subscribe: data.auth must be a string", None, channel)
    if channel_data is not None and not isinstance(channel_data, str):
        return Malformed("pusher:subscribe: data.channel_data must be a JSON string", None, channel)
    return SubscribeMessage(channel, auth, channel_data)


def _unsubscribe(data: Any) -> Frame:
    fields = _data_object(data)
    if fields is None or not isinstance(fields.get("channel"), str):
        return Malformed("pusher:unsubscribe needs a channel name in data.channel")
    return UnsubscribeMessage(fields["channel"])


def _sign_in(data: Any) -> Frame:
    fields = _data_object(data)
    if fields is None or not isinstance(fields.get("auth"), str) or not isinstance(fields.get("user_data"), str):
        return Malformed("pusher:signin needs data.auth, and data.user_data as a JSON string")
    return SignInMessage(fields["auth"], fields["user_data"])


def _client_event(event: str, envelope: dict[str, Any]) -> Frame:
    channel = envelope.get("channel")
    if not isinstance(channel, str):
        return Malformed("A client event needs a channel", Code.CLIENT_EVENT_REFUSED)
    if not is_client_event(event) or not is_valid_event_name(event):
        reason = "A client event's name must begin with client- and have at most 200 characters, no control characters"
        return Malformed(reason, Code.CLIENT_EVENT_REFUSED, channel)
    data = msgspec.json.encode(envelope.get("data")).decode()
    return ClientEventMessage(event, channel, data)
