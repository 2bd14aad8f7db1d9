"""One connection's side of the protocol, as a state machine: text in, effects out.

The caller feeds frames to `receive` and carries out the effects in order; when a `Join` went through it says so
with `joined`, when a channel is left by other means with `left`. Nothing the peer sends makes a session raise, and
a session never sees another connection.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import msgspec

from smartlink.protocol import encoding, signing
from smartlink.protocol.errors import Code
from smartlink.protocol.messages import ClientEvent, Malformed, Ping, Subscribe, Unsubscribe, decode
from smartlink.protocol.names import MAX_CHANNEL_LENGTH, ChannelKind, is_valid_channel, kind_of

__all__ = [
    "Effect",
    "Join",
    "Leave",
    "Member",
    "Send",
    "Session",
    "SessionRules",
    "Whisper",
]

MAX_USER_ID_LENGTH = 128
MAX_USER_INFO_BYTES = 1_024


@dataclass(frozen=True, slots=True)
class Member:
    """Who a connection is on a presence channel. `user_info` is JSON."""

    user_id: str
    user_info: bytes = b"{}"


@dataclass(frozen=True, slots=True)
class Send:
    """Write this frame to the peer."""

    frame: bytes


@dataclass(frozen=True, slots=True)
class Join:
    """Subscribe the connection; its right to do so has been checked. Answer with `Session.joined`."""

    channel: str
    member: Member | None = None


@dataclass(frozen=True, slots=True)
class Leave:
    """Unsubscribe the connection; nothing of that channel may reach it afterwards. `member`: who it was there."""

    channel: str
    member: Member | None = None


@dataclass(frozen=True, slots=True)
class Whisper:
    """Hand this frame to the channel's other subscribers."""

    channel: str
    event: str
    frame: bytes


Effect: TypeAlias = Send | Join | Leave | Whisper

_PONG = (Send(encoding.PONG),)
_NOTHING: tuple[Effect, ...] = ()


@dataclass(frozen=True, slots=True)
class SessionRules:
    """What an application lets its connections do."""

    key: str
    secret: str
    activity_timeout_s: int = 30
    accepts_client_events: bool = True
    max_channels: int | None = None


class Session:
    """State of one connection: its socket id and the channels it is on, with the member it is there."""

    __slots__ = ("channels", "rules", "socket_id")

    def __init__(self, socket_id: str, rules: SessionRules) -> None:
        self.socket_id = socket_id
        self.rules = rules
        self.channels: dict[str, Member | None] = {}

    def opened(self) -> Send:
        """The greeting; the first thing to write."""
        return Send(encoding.connection_established(self.socket_id, self.rules.activity_timeout_s))

    def receive(self, text: str | bytes) -> tuple[Effect, ...]:
        """What to do about one text frame of the peer, in order. Never raises."""
        frame = decode(text)
        if isinstance(frame, Ping):
            return _PONG
        if isinstance(frame, Subscribe):
            return (self._subscribe(frame),)
        if isinstance(frame, ClientEvent):
            return (self._client_event(frame),)
        if isinstance(frame, Unsubscribe):
            return self._unsubscribe(frame)
        if isinstance(frame, Malformed):
            return (Send(encoding.error(frame.reason, None)),)
        return _NOTHING  # Pong: a sign of life

    def joined(self, channel: str, member: Member | None, state: bytes = b"{}") -> Send:
        """The subscription went through; `state` as `encoding.presence_state` gives it on presence channels."""
        self.channels[channel] = member
        return Send(encoding.subscription_succeeded(channel, state))

    def left(self, channel: str) -> None:
        """The connection is no longer on the channel."""
        self.channels.pop(channel, None)

    def refused(self, channel: str, message: str) -> Send:
        """The subscription did not go through for a limit of the server."""
        return Send(encoding.subscription_error(channel, "LimitReached", message, 403))

    def _subscribe(self, frame: Subscribe) -> Effect:
        channel = frame.channel
        if not is_valid_channel(channel):
            return Send(
                encoding.subscription_error(
                    channel[:MAX_CHANNEL_LENGTH],
                    "InvalidChannel",
                    "A channel name has 1 to 200 of the characters A-Z a-z 0-9 _ - = @ , . ;",
                    400,
                )
            )
        if channel in self.channels:
            # Harmless: the node answers with the present state and changes nothing.
            return Join(channel, self.channels[channel])
        limit = self.rules.max_channels
        if limit is not None and len(self.channels) >= limit:
            return self.refused(channel, f"This connection is on {limit} channels, the most it may be on")
        kind = kind_of(channel)
        if kind is ChannelKind.PUBLIC:
            return Join(channel)
        if frame.auth is None or not signing.verify_channel(
            self.rules.key, self.rules.secret, frame.auth, self.socket_id, channel, frame.channel_data
        ):
            return self._unauthorized(
                channel, "Invalid signature: sign socket id, channel and channel_data as they are sent here"
            )
        if kind is not ChannelKind.PRESENCE:
            return Join(channel)
        member = _member(frame.channel_data)
        if isinstance(member, str):
            return self._unauthorized(channel, member)
        return Join(channel, member)

    def _unauthorized(self, channel: str, message: str) -> Send:
        return Send(encoding.subscription_error(channel, "AuthError", message, 401))

    def _unsubscribe(self, frame: Unsubscribe) -> tuple[Effect, ...]:
        if frame.channel not in self.channels:
            return _NOTHING
        return (Leave(frame.channel, self.channels.pop(frame.channel)),)

    def _client_event(self, frame: ClientEvent) -> Effect:
        channel = frame.channel
        if not self.rules.accepts_client_events:
            return _refuse_event("This application takes no client events")
        if not is_valid_channel(channel) or not kind_of(channel).takes_client_events:
            return _refuse_event("Client events go over private and presence channels only")
        if channel not in self.channels:
            return _refuse_event(f"Subscribe to {channel} before sending client events on it")
        member = self.channels[channel]
        user_id = None if member is None else member.user_id
        return Whisper(channel, frame.event, encoding.client_event(frame.event, channel, frame.data, user_id))


def _refuse_event(message: str) -> Send:
    return Send(encoding.error(message, Code.CLIENT_EVENT_REFUSED))


def _member(channel_data: str | None) -> Member | str:
    """The member that signed `channel_data` names, or what is wrong with it."""
    if channel_data is None:
        return "A presence channel needs channel_data with a user_id"
    try:
        fields: Any = msgspec.json.decode(channel_data)
    except (msgspec.DecodeError, UnicodeError, RecursionError, ValueError):
        return "channel_data is not JSON"
    if not isinstance(fields, dict):
        return "channel_data must be a JSON object"
    user_id = fields.get("user_id")
    # Server libraries write numeric ids as numbers; on the wire a user id is a text.
    if isinstance(user_id, int) and not isinstance(user_id, bool):
        user_id = str(user_id)
    if not isinstance(user_id, str) or not 0 < len(user_id) <= MAX_USER_ID_LENGTH:
        return f"channel_data.user_id must be a text of 1 to {MAX_USER_ID_LENGTH} characters"
    user_info = fields.get("user_info")
    encoded = b"{}" if user_info is None else msgspec.json.encode(user_info)
    if len(encoded) > MAX_USER_INFO_BYTES:
        return f"channel_data.user_info is {len(encoded)} bytes, more than {MAX_USER_INFO_BYTES}"
    return Member(user_id, encoded)
