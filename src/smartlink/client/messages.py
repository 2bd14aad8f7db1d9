"""What a client receives: events, gaps, changes of members and of watched users."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

__all__ = ["Event", "Gap", "Member", "MemberAdded", "MemberRemoved", "MemberUpdated", "Watched"]

_UNREAD = object()


class Event:
    """An event as it was received: `name`, `channel`, and what the publisher sent.

    `user_id` is the sender of a client event on a presence channel, as text; None for others.
    """

    __slots__ = ("_data", "_received", "channel", "name", "user_id")

    def __init__(self, name: str, channel: str, received: Any, user_id: str | None = None) -> None:
        """`received` is JSON text, or what plain JSON of a client event was decoded to."""
        self.name = name
        self.channel = channel
        self.user_id = user_id
        self._received = received
        self._data: Any = _UNREAD

    @property
    def data(self) -> Any:
        """The payload, decoded from JSON; the text itself if it is not JSON."""
        if self._data is _UNREAD:
            self._data = _decoded(self._received)
        return self._data

    @property
    def text(self) -> str:
        """The payload as it travelled: JSON, or whatever text the publisher sent."""
        return self._received if isinstance(self._received, str) else msgspec.json.encode(self._received).decode()

    def __repr__(self) -> str:
        return f"Event({self.name!r}, {self.channel!r}, {self.text[:200]})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Event):
            return NotImplemented
        mine = (self.name, self.channel, self.user_id, self.data)
        return mine == (other.name, other.channel, other.user_id, other.data)

    __hash__ = None  # type: ignore[assignment] # its data can be a list


def _decoded(received: Any) -> Any:
    if not isinstance(received, str):
        return received
    try:
        return msgspec.json.decode(received)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return received


@dataclass(frozen=True, slots=True)
class Gap:
    """Events of `channel` are missing at this place of the stream: load anew what depends on them.

    `reason` is `gap` (more was missed than the server keeps), `unknown` (the server no longer knows the session),
    `reconnected` (without a session nothing missed is sent again), `expired` (the authorization ended and was renewed),
    `overflow` (this stream was not read fast enough; the oldest were dropped) or `undecryptable`.
    `missed` is how many, if that is known.
    """

    channel: str
    reason: str
    missed: int | None = None


@dataclass(frozen=True, slots=True)
class Member:
    """A member of a presence channel: the id as text, and what others may see of them."""

    id: str
    info: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class MemberAdded:
    """A user has come to a presence channel, with their first connection."""

    member: Member


@dataclass(frozen=True, slots=True)
class MemberRemoved:
    """A user has left a presence channel, with their last connection."""

    member: Member


@dataclass(frozen=True, slots=True)
class MemberUpdated:
    """What others may see of a present member has changed. Only SmartLink's own server sends it."""

    member: Member


@dataclass(frozen=True, slots=True)
class Watched:
    """A watched user came online, or went offline."""

    user_id: str
    is_online: bool
