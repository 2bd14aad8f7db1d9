"""One connection's side of the protocol as a state machine: text in, effects out.

The caller passes frames to `receive` and carries out the effects in order; it reports a successful `Join` with
`joined`, and a successful `SignIn` with `signed_in`. No input makes a session raise, and a session never sees another
connection.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import msgspec

from smartlink.protocol import encoding, signing
from smartlink.protocol.errors import Code
from smartlink.protocol.messages import (
    ClientEventMessage,
    Malformed,
    Ping,
    SubscribeMessage,
    UnsubscribeMessage,
    decode,
    is_of_another_protocol,
    parse,
)
from smartlink.protocol.messages import SignInMessage as SignInFrame
from smartlink.protocol.names import (
    MAX_CHANNEL_LENGTH,
    MAX_EVENT_NAME_LENGTH,
    MAX_USER_ID_LENGTH,
    ChannelKind,
    is_user_channel,
    is_valid_channel,
    is_valid_user_id,
    kind_of,
    user_channel,
)

__all__ = [
    "EXPIRED",
    "MAX_WATCHED",
    "Answered",
    "Close",
    "Effect",
    "Join",
    "Leave",
    "PresenceMember",
    "Send",
    "Session",
    "SessionRules",
    "SignIn",
    "SignedInUser",
    "Whisper",
]

EXPIRED = "The authorization for this channel has expired"
MAX_WATCHED = 100
"""Users that one connection may watch. Source: Pusher Channels, "Watchlist events"."""


@dataclass(frozen=True, slots=True)
class PresenceMember:
    """A connection's member on a presence channel. `user_info` is JSON."""

    user_id: str
    user_info: bytes = b"{}"
    is_number: bool = False
    """Whether the application wrote the id as a number, and it is sent as one. Identity is by the text alone."""

    @property
    def raw_id(self) -> str | int:
        """The id as the application wrote it."""
        return int(self.user_id) if self.is_number else self.user_id


@dataclass(frozen=True, slots=True)
class SignedInUser:
    """The user signed in on a connection: `user_data` as it was signed, and its content."""

    user_data: str
    member: PresenceMember
    """The member on presence channels joined without `channel_data`."""
    watchlist: tuple[str, ...] = ()
    """Ids of the watched users."""
    watchlist_fault: str | None = None
    """Why some of the named users are not watched."""

    @property
    def id(self) -> str:
        return self.member.user_id


class Send(msgspec.Struct, frozen=True):
    """Write this frame to the peer."""

    frame: bytes


class Join(msgspec.Struct, frozen=True):
    """Subscribe the connection; it is already authorized. Report success with `Session.joined`."""

    channel: str
    member: PresenceMember | None = None
    expires_at: float | None = None
    """Unix time in seconds at which the authorization ends."""
    is_by_ticket: bool = False
    """The signature is the one made for a former socket of the same client."""


class Leave(msgspec.Struct, frozen=True):
    """Unsubscribe the connection; nothing of that channel may reach it afterwards. `member` is its former member."""

    channel: str
    member: PresenceMember | None = None


class Whisper(msgspec.Struct, frozen=True):
    """Relay this frame to the channel's other subscribers."""

    channel: str
    event: str
    data: str
    frame: bytes
    user_id: str | None = None


class SignIn(msgspec.Struct, frozen=True):
    """Sign the user in; the signature is already verified. Report success with `Session.signed_in`."""

    user: SignedInUser


class Answered(msgspec.Struct, frozen=True):
    """The client has answered the oldest unanswered `pusher:ping`: it has handled every frame sent before that."""


class Close(msgspec.Struct, frozen=True):
    """Send the reason and close the connection."""

    code: Code
    reason: str


Effect: TypeAlias = Send | Join | Leave | Whisper | SignIn | Answered | Close

_PONG = (Send(encoding.PONG),)
_ANSWERED = (Answered(),)
_NOTHING: tuple[Effect, ...] = ()
_OTHER_PROTOCOL = Close(
    Code.OTHER_PROTOCOL, "This server speaks Pusher Channels protocol 7: connect with pusher-js, Laravel Echo, …"
)


@dataclass(frozen=True, slots=True)
class SessionRules:
    """What an application allows its connections."""

    key: str
    secret: str
    activity_timeout_s: int = 30
    accepts_client_events: bool = True
    accepts_public_client_events: bool = False
    """Also on public channels, if client events are accepted at all."""
    max_channels: int | None = None
    max_user_info_bytes: int = 1_024
    max_channel_length: int = MAX_CHANNEL_LENGTH
    max_event_name_length: int = MAX_EVENT_NAME_LENGTH


class Session:
    """The state of one connection: socket id, user, and channels with the member on each."""

    __slots__ = ("_has_spoken", "channels", "client_events_on", "named", "rules", "socket_id", "tickets", "user")

    def __init__(self, socket_id: str, rules: SessionRules) -> None:
        self.socket_id = socket_id
        self.rules = rules
        self.channels: dict[str, PresenceMember | None] = {}
        self.user: SignedInUser | None = None
        self._has_spoken = False
        self.client_events_on: Callable[[str], str | None] | None = None
        """Tells where clients may send events on a channel (none, members or all), or None to leave it to `rules`."""
        self.tickets: dict[str, str] | None = None
        """By channel, the socket id of a former socket whose signature is still good."""
        self.named: dict[str, str] = {}
        """By private channel, the user named in `channel_data` of its authorization, if any."""

    @property
    def user_id(self) -> str:
        """The id of the signed-in user, else of a member it is on a channel, else empty."""
        if self.user is not None:
            return self.user.id
        members = (member.user_id for member in self.channels.values() if member is not None)
        return next(members, None) or next(iter(self.named.values()), "")

    def opened(self) -> Send:
        """The greeting, which must be written first."""
        return Send(encoding.connection_established(self.socket_id, self.rules.activity_timeout_s))

    def receive(self, text: str | bytes) -> tuple[Effect, ...]:
        """Handle one text frame; return the effects in order. Never raises."""
        frame = decode(text)
        is_first, self._has_spoken = not self._has_spoken, True
        if isinstance(frame, Ping):
            return _PONG
        if isinstance(frame, SubscribeMessage):
            return (self._subscribe(frame),)
        if isinstance(frame, ClientEventMessage):
            return (self._client_event(frame),)
        if isinstance(frame, UnsubscribeMessage):
            return self._unsubscribe(frame)
        if isinstance(frame, SignInFrame):
            return self._sign_in(frame)
        if isinstance(frame, Malformed):
            if is_first and is_of_another_protocol(text):
                return (_OTHER_PROTOCOL,)
            return (Send(encoding.error(frame.reason, frame.code, frame.channel)),)
        return _ANSWERED

    def joined(self, channel: str, member: PresenceMember | None, state: bytes = b'"{}"') -> Send:
        """The subscription succeeded; on presence channels `state` is as `encoding.subscription_succeeded` takes it."""
        # Share one string among all connections on the channel.
        self.channels[sys.intern(channel)] = member
        return Send(encoding.subscription_succeeded(channel, state))

    def signed_in(self, user: SignedInUser) -> Send:
        """The sign-in succeeded."""
        self.user = user
        return Send(encoding.signin_success(user.user_data))

    def watchlist_fault(self, message: str) -> Send:
        """Some of the named users are not watched; the sign-in stands."""
        return Send(encoding.error(message, Code.WATCHLIST_TOO_LONG))

    def refused(self, channel: str, message: str) -> Send:
        """The subscription failed because of a limit of the server."""
        return Send(encoding.subscription_error(channel, "LimitReached", message, 403))

    def expelled(self, channel: str, kind: str, message: str, status: int) -> tuple[Send, Leave]:
        """The right to be on the channel has ended. `kind` is Expired or Revoked."""
        send = Send(encoding.subscription_error(channel, kind, message, status))
        return send, Leave(channel, self.channels.pop(channel))

    def expired(self, channel: str) -> Send:
        """The subscription failed: its authorization ended before it came."""
        self.named.pop(channel, None)
        return Send(encoding.subscription_error(channel, "Expired", EXPIRED, 401))

    def voided(self, channel: str) -> Send:
        """The subscription failed: its signature was valid but has been revoked."""
        self.named.pop(channel, None)
        return self._unauthorized(channel, "This authorization was revoked: authorize again on a new connection")

    def _subscribe(self, frame: SubscribeMessage) -> Effect:
        channel = frame.channel
        longest = self.rules.max_channel_length
        if not is_valid_channel(channel) or len(channel) > longest:
            if is_user_channel(channel):
                return self._subscribe_to_user(channel)
            reason = f"A channel name has 1 to {longest} of the characters A-Z a-z 0-9 _ - = @ , . ;"
            return Send(encoding.subscription_error(channel[:MAX_CHANNEL_LENGTH], "InvalidChannel", reason, 400))
        if channel in self.channels:
            # Harmless: the node answers with the current state and changes nothing.
            return Join(channel, self.channels[channel])
        limit = self.rules.max_channels
        if limit is not None and len(self.channels) >= limit:
            return self.refused(channel, f"This connection has reached its limit of {limit} channels")
        kind = kind_of(channel)
        if kind is ChannelKind.PUBLIC:
            return Join(channel)
        signed_for = self._signed_for(frame)
        if signed_for is None:
            return self._unauthorized(
                channel, "Invalid signature: sign socket id, channel and channel_data exactly as sent"
            )
        expires_at = _expiry(frame.channel_data)
        if isinstance(expires_at, str):
            return self._unauthorized(channel, expires_at)
        is_by_ticket = signed_for != self.socket_id
        if kind is not ChannelKind.PRESENCE:
            if (user_id := _named(frame.channel_data)) is not None:
                self.named[channel] = user_id
            return Join(channel, None, expires_at, is_by_ticket)
        if frame.channel_data is None and self.user is not None:
            return Join(channel, self.user.member, None, is_by_ticket)
        member = _member(frame.channel_data, self.rules.max_user_info_bytes)
        if isinstance(member, str):
            return self._unauthorized(channel, member)
        return Join(channel, member, expires_at, is_by_ticket)

    def _signed_for(self, frame: SubscribeMessage) -> str | None:
        """The socket id that a subscription is signed for: this one, or the former one of its ticket; else None."""
        rules, channel, data = self.rules, frame.channel, frame.channel_data
        if frame.auth is None:
            return None
        if signing.verify_channel(rules.key, rules.secret, frame.auth, self.socket_id, channel, data):
            if self.tickets:
                self.tickets.pop(channel, None)
            return self.socket_id
        former = self.tickets.get(channel, "") if self.tickets else ""
        if former and signing.verify_channel(rules.key, rules.secret, frame.auth, former, channel, data):
            return former
        return None

    def _subscribe_to_user(self, channel: str) -> Effect:
        if self.user is None or channel != user_channel(self.user.id):
            return self._unauthorized(channel, "Only the signed-in user may subscribe to this channel")
        return Join(channel)

    def _sign_in(self, frame: SignInFrame) -> tuple[Effect, ...]:
        if not signing.verify_user(self.rules.key, self.rules.secret, frame.auth, self.socket_id, frame.user_data):
            return (Close(Code.UNAUTHORIZED, "Invalid signature: sign socket id and user_data exactly as sent"),)
        user = _user(frame.user_data, self.rules.max_user_info_bytes)
        if isinstance(user, str):
            return (Close(Code.UNAUTHORIZED, user),)
        if self.user is not None:
            if user.id != self.user.id:
                return (Send(encoding.error("Another user is signed in: reconnect to switch users", None)),)
            return (Send(encoding.signin_success(self.user.user_data)),)
        return (SignIn(user),)

    def _unauthorized(self, channel: str, message: str) -> Send:
        return Send(encoding.subscription_error(channel, "AuthError", message, 401))

    def _unsubscribe(self, frame: UnsubscribeMessage) -> tuple[Effect, ...]:
        if frame.channel not in self.channels:
            return _NOTHING
        return (Leave(frame.channel, self.channels.pop(frame.channel)),)

    def _client_event(self, frame: ClientEventMessage) -> Effect:
        channel = frame.channel
        allowed = None if self.client_events_on is None else self.client_events_on(channel)
        if allowed == "none":
            return _refuse_event(channel, "Client events are not allowed on this channel")
        if allowed is None and not self.rules.accepts_client_events:
            return _refuse_event(channel, "This application does not accept client events")
        on_public = self.rules.accepts_public_client_events if allowed is None else allowed == "all"
        kind = kind_of(channel)
        if not is_valid_channel(channel) or not (
            kind.takes_client_events or (on_public and kind is ChannelKind.PUBLIC)
        ):
            kinds = "public, private and presence" if on_public else "private and presence"
            return _refuse_event(channel, f"Client events are allowed on {kinds} channels only")
        if len(frame.event) > self.rules.max_event_name_length:
            reason = f"The event's name is longer than {self.rules.max_event_name_length} characters"
            return _refuse_event(channel, reason)
        if channel not in self.channels:
            return _refuse_event(channel, f"Subscribe to {channel} before sending client events on it")
        member = self.channels[channel]
        if member is None:
            return Whisper(channel, frame.event, frame.data, encoding.client_event(frame.event, channel, frame.data))
        text = encoding.client_event(frame.event, channel, frame.data, member.raw_id)
        return Whisper(channel, frame.event, frame.data, text, member.user_id)


def _refuse_event(channel: str, message: str) -> Send:
    return Send(encoding.error(message, Code.CLIENT_EVENT_REFUSED, channel))


def _member(channel_data: str | None, max_info_bytes: int) -> PresenceMember | str:
    """The member named by signed `channel_data`, or what is wrong with it."""
    if channel_data is None:
        return "A presence channel needs channel_data with a user_id, or a signed-in user"
    fields = _object(channel_data)
    if fields is None:
        return "channel_data must be a JSON object"
    user_id = _user_id(fields.get("user_id"))
    if user_id is None:
        return f"channel_data.user_id must be a string of 1 to {MAX_USER_ID_LENGTH} characters"
    user_info = _user_info(fields)
    if len(user_info) > max_info_bytes:
        return f"channel_data.user_info is {len(user_info)} bytes, more than {max_info_bytes}"
    return PresenceMember(user_id, user_info, _is_number(fields.get("user_id")))


def _expiry(channel_data: str | None) -> float | str | None:
    """When signed `channel_data` ends, in Unix seconds, None for never; or what is wrong with it."""
    if channel_data is None or '"expires_at"' not in channel_data:
        return None
    value = (_object(channel_data) or {}).get("expires_at")
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e12:
        return "channel_data.expires_at must be a Unix time in seconds"
    return value


def _named(channel_data: str | None) -> str | None:
    """The user named by signed `channel_data` of a private channel, if any; other content is ignored."""
    fields = None if channel_data is None else _object(channel_data)
    return None if fields is None else _user_id(fields.get("user_id"))


def _user(user_data: str, max_info_bytes: int) -> SignedInUser | str:
    """The user named by signed `user_data`, or what is wrong with it."""
    fields = _object(user_data)
    if fields is None:
        return "user_data must be a JSON object"
    user_id = _user_id(fields.get("id"))
    if user_id is None:
        return f"user_data.id must be a string of 1 to {MAX_USER_ID_LENGTH} characters"
    user_info = _user_info(fields)
    if len(user_info) > max_info_bytes:
        return f"user_data.user_info is {len(user_info)} bytes, more than {max_info_bytes}"
    member = PresenceMember(user_id, user_info, _is_number(fields.get("id")))
    return SignedInUser(user_data, member, *_watchlist(fields.get("watchlist")))


def _watchlist(value: Any) -> tuple[tuple[str, ...], str | None]:
    """The ids to watch, each once, and what is wrong with the rest. Like Pusher, only the first 100 are watched."""
    if value is None:
        return (), None
    ids = [_user_id(item) for item in value] if isinstance(value, list) else [None]
    if None in ids:
        return (), "watchlist must be a list of user ids"
    watched = tuple(dict.fromkeys(user_id for user_id in ids if user_id is not None))
    if len(watched) > MAX_WATCHED:
        return watched[
            :MAX_WATCHED
        ], f"watchlist has more than {MAX_WATCHED} user ids: only the first {MAX_WATCHED} are watched"
    return watched, None


def _object(text: str) -> dict[str, Any] | None:
    fields = parse(text)
    return fields if isinstance(fields, dict) else None


def _user_id(value: Any) -> str | None:
    """The id as text, whichever way the application wrote it: 2 and "2" are the same user."""
    if _is_number(value):
        value = str(value)
    return value if is_valid_user_id(value) else None


def _is_number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and -(1 << 63) <= value < 1 << 64


def _user_info(fields: dict[str, Any]) -> bytes:
    user_info = fields.get("user_info")
    return b"{}" if user_info is None else msgspec.json.encode(user_info)
