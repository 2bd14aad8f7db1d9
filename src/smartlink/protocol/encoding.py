"""Server frames as UTF-8 JSON. The only writer of wire JSON.

`data` of the protocol's own frames is JSON inside a JSON string, as clients of protocol 7 expect; so is the `data` of a
published event, because publishers pass it as text. The `data` of errors and client events is plain JSON.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, TypeVar

import msgspec

from smartlink.protocol.names import MAX_CHANNEL_LENGTH

__all__ = [
    "PING",
    "PONG",
    "MemberList",
    "cache_miss",
    "client_event",
    "connection_established",
    "error",
    "event",
    "is_internal",
    "member_added",
    "member_entry",
    "member_in",
    "member_removed",
    "member_updated",
    "member_updated_in",
    "name_of",
    "presence_state",
    "present_in",
    "resume_failed",
    "resume_success",
    "signin_success",
    "subscription_count",
    "subscription_count_in",
    "subscription_error",
    "subscription_succeeded",
    "watched_in",
    "watchlist_events",
]

_T = TypeVar("_T")
_encode = msgspec.json.Encoder().encode

_NO_DATA: Final = b'"{}"'
PING: Final = b'{"event":"pusher:ping","data":"{}"}'
PONG: Final = b'{"event":"pusher:pong","data":"{}"}'
_INTERNAL: Final = b'{"event":"pusher_internal:'
_SUBSCRIPTION_COUNT: Final = b'{"event":"pusher_internal:subscription_count"'
_MEMBER_ADDED: Final = b'{"event":"pusher_internal:member_added"'
_MEMBER_REMOVED: Final = b'{"event":"pusher_internal:member_removed"'
_MEMBER_UPDATED: Final = b'{"event":"pusher:member_updated"'
REFUSALS: Final = (b'{"event":"pusher:error"', b'{"event":"pusher:subscription_error"')
"""Beginnings of the frames that refuse something."""
_ABOUT_CHANNELS: Final = (_INTERNAL, _MEMBER_UPDATED)
_WATCHLIST_EVENTS: Final = b'{"event":"pusher_internal:watchlist_events"'


class _Frame(msgspec.Struct):
    data: str


class _Fault(msgspec.Struct):
    message: str = ""
    error: str = ""


class _Refusal(msgspec.Struct):
    data: _Fault | str
    channel: str = ""


class _Count(msgspec.Struct):
    subscription_count: int


class _User(msgspec.Struct):
    user_id: str | int


class _Ids(msgspec.Struct):
    ids: frozenset[str | int]


class _State(msgspec.Struct):
    presence: _Ids


class _Update(msgspec.Struct):
    user_id: str | int
    user_info: msgspec.Raw


class _Edge(msgspec.Struct):
    name: str
    user_ids: list[str]


class _Edges(msgspec.Struct):
    events: list[_Edge]


def _text(json: bytes) -> bytes:
    """Encode JSON as a JSON string (double encoding)."""
    return _encode(json.decode())


def connection_established(socket_id: str, activity_timeout_s: int) -> bytes:
    """The first frame of a connection. `socket_id` has the form digits.digits."""
    data = b'{\\"socket_id\\":\\"%b\\",\\"activity_timeout\\":%d}' % (socket_id.encode(), activity_timeout_s)
    return b'{"event":"pusher:connection_established","data":"%b"}' % data


def error(message: str, code: int | None, channel: str | None = None) -> bytes:
    """`pusher:error`; `code` is null if the protocol has none, as for malformed frames.

    `channel` is that of the refused subscription or client event. `data` is an object, where clients look for the code.
    Source: Pusher Channels protocol, "pusher:error".
    """
    data = _encode({"code": code, "message": message})
    if channel is None:
        return b'{"event":"pusher:error","data":%b}' % data
    return b'{"event":"pusher:error","channel":%b,"data":%b}' % (_encode(channel[:MAX_CHANNEL_LENGTH]), data)


def refusal_in(frame: bytes) -> tuple[str, str]:
    """Return channel (may be empty) and reason of a frame that begins with one of `REFUSALS`."""
    refusal = msgspec.json.decode(frame, type=_Refusal)
    data = refusal.data
    fault = msgspec.json.decode(data, type=_Fault) if isinstance(data, str) else data
    return refusal.channel, fault.message or fault.error


def presence_state(members: Iterable[tuple[str | int, bytes]]) -> bytes:
    """The `data` of a presence channel's `subscription_succeeded`, from members as (user id, user_info as JSON).

    Ids are sent as the application wrote them, strings or numbers; as keys of `hash` they are strings.
    """
    ids: list[bytes] = []
    hash_: list[bytes] = []
    for user_id, user_info in members:
        encoded, entry = member_entry(user_id, user_info)
        ids.append(encoded)
        hash_.append(entry)
    return b'{"presence":{"count":%d,"ids":[%b],"hash":{%b}}}' % (len(ids), b",".join(ids), b",".join(hash_))


def member_entry(user_id: str | int, user_info: bytes) -> tuple[bytes, bytes]:
    """A member in `ids` and in `hash` of a presence channel's state."""
    encoded = _encode(user_id)
    key = encoded if isinstance(user_id, str) else b'"%b"' % encoded
    return encoded, b"%b:%b" % (key, user_info)


class MemberList:
    """What `presence_state` returns, as a JSON string, kept encoded while members come and go.

    A join encodes the one who comes; a leave encodes nobody.
    """

    __slots__ = ("_entries", "_hash", "_ids")

    def __init__(self) -> None:
        self._entries: dict[str, tuple[bytes, bytes]] = {}
        """By key, escaped."""
        self._ids: bytearray | None = None
        self._hash = bytearray()
        """Both: the entries of all members; unless they must be joined anew."""

    def put(self, key: str, user_id: str | int, user_info: bytes) -> None:
        """Add a member at the end, or replace one where it is. `key` identifies them."""
        id_, entry = (_text(part)[1:-1] for part in member_entry(user_id, user_info))
        if key in self._entries:
            self._ids = None
        elif self._ids is not None:
            if self._ids:
                self._ids += b","
                self._hash += b","
            self._ids += id_
            self._hash += entry
        self._entries[key] = id_, entry

    def remove(self, key: str) -> None:
        """Remove a member, who is in the list."""
        del self._entries[key]
        self._ids = None

    def data(self) -> bytes:
        """The list, for `subscription_succeeded`."""
        if self._ids is None:
            self._ids = bytearray(b",".join([id_ for id_, _ in self._entries.values()]))
            self._hash = bytearray(b",".join([entry for _, entry in self._entries.values()]))
        head = b'"{\\"presence\\":{\\"count\\":%d,\\"ids\\":[' % len(self._entries)
        return b"".join((head, self._ids, b'],\\"hash\\":{', self._hash, b'}}}"'))


def subscription_succeeded(channel: str, data: bytes = _NO_DATA) -> bytes:
    """The reply to a subscription; on presence channels `data` is from `presence_state` or a `MemberList`."""
    data = data if data.startswith(b'"') else _text(data)
    return b'{"event":"pusher_internal:subscription_succeeded","channel":%b,"data":%b}' % (_encode(channel), data)


def present_in(data: bytes) -> frozenset[str]:
    """The user ids in the state of a presence channel, from `presence_state` or a `MemberList`."""
    json: bytes | str = msgspec.json.decode(data, type=str) if data.startswith(b'"') else data
    return frozenset(map(str, msgspec.json.decode(json, type=_State).presence.ids))


def subscription_error(channel: str, kind: str, message: str, status: int) -> bytes:
    """A refused subscription; reaches Echo's `.error()`. `kind` is AuthError, LimitReached, InvalidChannel,
    or for one that had succeeded Expired or Revoked.
    """
    return _encode(
        {
            "event": "pusher:subscription_error",
            "channel": channel,
            "data": {"type": kind, "error": message, "status": status},
        }
    )


def resume_success(channel: str, replayed: int) -> bytes:
    """Everything that the session missed on the channel follows: so many frames."""
    return _encode({"event": "pusher:resume_success", "channel": channel, "data": f'{{"replayed":{replayed}}}'})


def resume_failed(channel: str, reason: str) -> bytes:
    """What the session missed on the channel is not known: `gap` if it is no longer kept, `unknown` for no session."""
    return _encode({"event": "pusher:resume_failed", "channel": channel, "data": f'{{"reason":"{reason}"}}'})


def cache_miss(channel: str) -> bytes:
    """The cache channel has no last event. The one frame without `data`."""
    return b'{"event":"pusher:cache_miss","channel":%b}' % _encode(channel)


def signin_success(user_data: str) -> bytes:
    """The reply to a sign-in; `user_data` is the text that was signed."""
    return b'{"event":"pusher:signin_success","data":%b}' % _text(_encode({"user_data": user_data}))


def watchlist_events(user_ids: Mapping[str, Sequence[str]]) -> bytes:
    """Watched users that came online or went offline: user ids by `online` and `offline`; empty lists are omitted."""
    events = [{"name": name, "user_ids": ids} for name, ids in user_ids.items() if ids]
    return b'%b,"data":%b}' % (_WATCHLIST_EVENTS, _text(_encode({"events": events})))


def subscription_count(channel: str, count: int) -> bytes:
    """The number of connections on a channel."""
    data = _text(_encode({"subscription_count": count}))
    return b'%b,"channel":%b,"data":%b}' % (_SUBSCRIPTION_COUNT, _encode(channel), data)


def is_internal(frame: bytes) -> bool:
    """Whether a frame is about the channel itself rather than a published event."""
    return frame.startswith(_ABOUT_CHANNELS)


def name_of(frame: bytes) -> bytes:
    """The beginning of a frame for a channel, up to the end of the event's name: equal for equal names."""
    return frame[: frame.find(b'","channel":')]


def subscription_count_in(frame: bytes) -> int | None:
    """The count in a `subscription_count` frame; None for any other bytes."""
    data = _data_in(frame, _Count) if frame.startswith(_SUBSCRIPTION_COUNT) else None
    return None if data is None else data.subscription_count


def member_in(frame: bytes) -> tuple[str, bool] | None:
    """User id and whether they joined, from a `member_added` or `member_removed` frame; None for any other bytes."""
    has_come = frame.startswith(_MEMBER_ADDED)
    data = _data_in(frame, _User) if has_come or frame.startswith(_MEMBER_REMOVED) else None
    return None if data is None else (str(data.user_id), has_come)


def member_updated_in(frame: bytes) -> tuple[str, bytes] | None:
    """User id and `user_info` as JSON from a `member_updated` frame; None for any other bytes."""
    data = _data_in(frame, _Update) if frame.startswith(_MEMBER_UPDATED) else None
    return None if data is None else (str(data.user_id), bytes(data.user_info))


def watched_in(frame: bytes) -> tuple[str, bool] | None:
    """User id and whether they are online, from a `watchlist_events` frame about one user; None for any other bytes."""
    data = _data_in(frame, _Edges) if frame.startswith(_WATCHLIST_EVENTS) else None
    if data is None or len(data.events) != 1 or len(data.events[0].user_ids) != 1:
        return None
    return data.events[0].user_ids[0], data.events[0].name == "online"


def _data_in(frame: bytes, kind: type[_T]) -> _T | None:
    try:
        return msgspec.json.decode(msgspec.json.decode(frame, type=_Frame).data, type=kind)
    except (msgspec.DecodeError, UnicodeError):
        return None


def member_added(channel: str, user_id: str | int, user_info: bytes) -> bytes:
    """A user's first connection joined a presence channel. `user_info` is JSON."""
    data = _text(b'{"user_id":%b,"user_info":%b}' % (_encode(user_id), user_info))
    return b'%b,"channel":%b,"data":%b}' % (_MEMBER_ADDED, _encode(channel), data)


def member_removed(channel: str, user_id: str | int) -> bytes:
    """A user's last connection left a presence channel."""
    data = _text(b'{"user_id":%b}' % _encode(user_id))
    return b'%b,"channel":%b,"data":%b}' % (_MEMBER_REMOVED, _encode(channel), data)


def member_updated(channel: str, user_id: str | int, user_info: bytes) -> bytes:
    """A member's `user_info` changed. Not in protocol 7: without the internal prefix, unmodified clients pass the event
    to their handlers.
    """
    data = _text(b'{"user_id":%b,"user_info":%b}' % (_encode(user_id), user_info))
    return b'%b,"channel":%b,"data":%b}' % (_MEMBER_UPDATED, _encode(channel), data)


def event(name: str, channel: str, data: str) -> bytes:
    """A published event; `data` is the publisher's text."""
    return b'{"event":%b,"channel":%b,"data":%b}' % (_encode(name), _encode(channel), _encode(data))


def client_event(name: str, channel: str, data: str, user_id: str | int | None = None) -> bytes:
    """A client event for the other subscribers; `data` is JSON, `user_id` is the sender's on presence channels."""
    if user_id is None:
        return b'{"event":%b,"channel":%b,"data":%b}' % (_encode(name), _encode(channel), data.encode())
    return b'{"event":%b,"channel":%b,"data":%b,"user_id":%b}' % (
        _encode(name),
        _encode(channel),
        data.encode(),
        _encode(user_id),
    )
