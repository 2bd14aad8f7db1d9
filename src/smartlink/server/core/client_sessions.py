"""What the session of a client that may come back consists of: its name, its state, and what of it is stored."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeAlias

import msgspec

from smartlink.protocol.errors import Code
from smartlink.protocol.names import kind_of
from smartlink.protocol.session import PresenceMember
from smartlink.server.cluster.brokers.base import Publication, left_out_parts
from smartlink.server.core.grants import names_another, subjects, user_of
from smartlink.server.core.hub import Connection

__all__ = [
    "MAX_SESSION_BYTES",
    "MAX_SOCKETS",
    "NONE",
    "Barrier",
    "ClientSession",
    "KeptChannel",
    "Report",
    "Resumed",
    "SessionContent",
    "SessionToken",
    "decode",
    "encode",
    "report_of",
]

MAX_SESSION_BYTES = 32_768
"""What one session may hold when it is stored: a few clients must not drive out an application's other sessions."""
MAX_SOCKETS = 8
"""Former sockets of a session that are remembered, to leave out their own events."""
MAX_UNANSWERED = 100
"""Pings that a client may leave unanswered while it shows other signs of life."""
_TOKEN = re.compile(r"[A-Za-z0-9_-]{22,64}\Z")


class KeptChannel(msgspec.Struct, array_like=True):
    """One channel of a session."""

    position: int
    """Confirmed."""
    signed_for: str = ""
    """The socket id in the signature that let the client subscribe."""
    marks: list[int] = []
    """Marks of what was revoked before that (`SessionStore.marks`)."""
    user_id: str = ""
    """As whom the client was on it, if that is known and the channel needs authorization."""

    def own_subjects(self, channel: str) -> list[str]:
        """What a revocation may be about that took place while the client was away (`grants.subjects`)."""
        return subjects(channel, self.user_id or None, self.signed_for)

    def is_of_another(self, channel: str, about: Sequence[str]) -> bool:
        """Whether it was another user's than the one in `about`, who may be unknown."""
        return bool(self.user_id) and names_another(channel, self.user_id, about)


class SessionContent(msgspec.Struct, array_like=True):
    """What a session holds, as it is stored."""

    channels: dict[str, KeptChannel]
    sockets: list[str]
    is_partial: bool = False
    """It held more than one session may: channels of it are missing."""


NONE: Final[dict[str, Any]] = {}
"""An empty dictionary that sessions share. Never written to."""
_encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.Decoder(SessionContent).decode


def encode(content: SessionContent) -> bytes:
    """Encode what a session holds, without the last of its channels where it is more than `MAX_SESSION_BYTES`."""
    encoded = _encode(content)
    if len(encoded) <= MAX_SESSION_BYTES:
        return encoded
    room, channels = MAX_SESSION_BYTES - len(_encode(SessionContent({}, content.sockets, is_partial=True))) - 4, {}
    for channel, kept in content.channels.items():
        room -= len(_encode(channel)) + len(_encode(kept))
        if room < 0:
            break
        channels[channel] = kept
    return _encode(SessionContent(channels, content.sockets, is_partial=True))


class SessionToken(NamedTuple):
    """The name that a client gave its session."""

    token: str
    is_fresh: bool = True
    """False: the client says that it had a socket before."""

    @classmethod
    def parse(cls, path: str, query: str) -> tuple[SessionToken | None, str]:
        """Split `/s/{token}` off a path. Raises ValueError for a malformed token.

        `fresh=0` is a parameter of the query, or of the token, `/s/{token};fresh=0`: pusher-js cannot add to its query.
        """
        if not path.startswith("/s/"):
            return None, path
        segment, slash, rest = path.removeprefix("/s/").partition("/")
        token, semicolon, parameter = segment.partition(";")
        if not _TOKEN.match(token) or (semicolon and parameter != "fresh=0"):
            raise ValueError("A session token has 22 to 64 of the characters A-Z a-z 0-9 _ -, and at most ;fresh=0")
        is_fresh = not semicolon and "fresh=0" not in query.split("&")
        return cls(token, is_fresh), slash + rest


Barrier: TypeAlias = tuple[float, Mapping[str, int]]
"""When it was sent, and the positions that it covers by channel. Many sessions share one."""


class Report(NamedTuple):
    """An event whose receipt the application wants to know of."""

    position: int
    event_id: str
    except_socket: str | None


def report_of(publication: Publication) -> Report | None:
    if publication.report_id is None:
        return None
    return Report(publication.position, publication.report_id, publication.except_socket)


class ClientSession:
    """One client's session while its socket is open. Small: most of its dictionaries are `NONE`.

    The confirmed positions are with the channels (`Resumption._followers`), where many sessions share one number.
    """

    __slots__ = (
        "barriers",
        "claims_to_be_known",
        "connection",
        "due",
        "former",
        "is_known",
        "is_loaded",
        "is_partial",
        "marks",
        "name",
        "replayed",
        "saved_at",
        "signed_for",
        "sockets",
        "users",
    )

    def __init__(self, name: str, connection: Connection, *, claims_to_be_known: bool) -> None:
        self.name = name
        self.connection = connection
        self.claims_to_be_known = claims_to_be_known
        """The client says that it had a socket before, or nobody can tell."""
        self.is_known = self.is_loaded = False
        """Whether something is known of former sockets, and whether the store, or a former socket here, was asked."""
        self.is_partial = False
        """Whether some of its former channels are forgotten (`SessionContent.is_partial`)."""
        self.former: dict[str, KeptChannel] = NONE
        """Channels of former sockets to which it has not subscribed again."""
        self.sockets: Sequence[str] = ()
        """Ids of former sockets."""
        self.signed_for: dict[str, str] = NONE
        """By channel: the former socket id in its signature, where that is not the present one's."""
        self.marks: dict[str, list[int]] = NONE
        """By channel, the marks there were when it subscribed, if any."""
        self.users: dict[str, str] = NONE
        """By channel, as whom a former socket was on it."""
        self.replayed: dict[str, Collection[Report]] = NONE
        """By channel, events that were sent again and are to be reported."""
        self.due: dict[str, int] = NONE
        """Positions written but not yet covered by a barrier."""
        self.barriers: tuple[Barrier, ...] = ()
        """When each unanswered ping was sent, and what it covers, oldest first; a mere sign of life covers nothing."""
        self.saved_at = 0.0

    def expect_pong(self, sent_at: float, covered: Mapping[str, int]) -> None:
        """Note a ping that was written, and what its answer confirms."""
        self.barriers = (*self.barriers, (sent_at, covered))
        if len(self.barriers) > MAX_UNANSWERED:
            self.connection.close(Code.NO_PONG, "No pong: the client does not answer pings")

    def is_left_out(self, text: str | None, channel: str) -> bool:
        """Whether the publisher excluded the session's client, perhaps by a former socket (`left_out`)."""
        if text is None:
            return False
        socket_id, user_id = left_out_parts(text)
        state = self.connection.session
        if socket_id == state.socket_id or socket_id in self.sockets:
            return True
        member: PresenceMember | None = state.channels.get(channel)
        users = {state.named.get(channel), member and member.user_id, state.user and state.user.id}
        return user_id is not None and user_id in users

    def content(self, positions: Mapping[str, int]) -> SessionContent:
        """What it holds now, with the confirmed position of each channel that it is on."""
        connection = self.connection
        own = connection.session.socket_id
        kept = dict(self.former)
        for channel, position in positions.items():
            user_id: str | None = None
            if kind_of(channel).needs_authorization:
                user_id = user_of(connection, channel, connection.session.channels[channel])
            kept[channel] = KeptChannel(
                position,
                self.signed_for.get(channel, own),
                self.marks.get(channel, []),
                user_id or self.users.get(channel, ""),
            )
        return SessionContent(kept, [*self.sockets, own][-MAX_SOCKETS:], self.is_partial)

    def owe(self, channel: str, position: int) -> None:
        """Note that everything up to a position has been written."""
        if not self.due:
            self.due = {}
        self.due[channel] = max(position, self.due.get(channel, 0))


@dataclass(frozen=True, slots=True)
class Resumed:
    """What a session that subscribes is to be told."""

    position: int
    """Everything up to it has been handled, or is not owed."""
    last: int
    """The last position in `frames`, or `position`. What arrives up to it has been sent."""
    frames: Collection[bytes]
    """Payloads to write after the confirmation, oldest first."""
    is_complete: bool = False
    """The session was on the channel before, and now has everything."""
    reports: Collection[Report] = ()
