"""A client's session with SmartLink's server: what lets it miss nothing, and what it holds for that.

The session is named in the path. After a reconnect the server sends what was missed, and perhaps what had arrived but
was not yet confirmed: that is dropped here, by the payload's `eventId` (or an encrypted one's nonce). Authorizations
are kept as tickets, which the server accepts on later sockets of the session too.
"""

from __future__ import annotations

import secrets
import time
from collections import OrderedDict
from typing import Any

import msgspec

from smartlink.client.authorization import Authorization
from smartlink.client.frames import Frame, fields_of

__all__ = ["ClientSession", "Ticket"]

MAX_REMEMBERED = 2_000
"""Events that are remembered, to know them when they come again."""


class _Ids(msgspec.Struct):
    eventId: Any = None  # noqa: N815 - as it is in payloads
    nonce: Any = None


_ids = msgspec.json.Decoder(_Ids)


class Ticket:
    """An authorization, and the socket it was shown on last."""

    __slots__ = ("authorization", "expires_at", "socket_id")

    def __init__(self, authorization: Authorization, socket_id: str) -> None:
        self.authorization = authorization
        self.socket_id = socket_id
        expires_at = fields_of(authorization.channel_data).get("expires_at")
        self.expires_at = expires_at if isinstance(expires_at, int | float) else float("inf")

    def holds(self, socket_id: str) -> bool:
        """Whether to show it on this socket: not twice on the same one, nor after its end."""
        return self.socket_id != socket_id and time.time() < self.expires_at


class ClientSession:
    """One session; without one (`is_kept` false) nothing is sent again."""

    def __init__(self, *, is_kept: bool) -> None:
        self.is_kept = is_kept
        self._token = secrets.token_urlsafe(24)
        self._was_connected = False
        self._remembered: OrderedDict[tuple[Any, ...], None] = OrderedDict()
        self._replayed: dict[str, int] = {}
        """By channel, how many of the next events are sent again."""

    @property
    def path(self) -> str:
        """What stands before `/app/` in the address."""
        if not self.is_kept:
            return ""
        return f"/s/{self._token};fresh=0" if self._was_connected else f"/s/{self._token}"

    def connected(self) -> None:
        """Note that the server has greeted the client."""
        self._was_connected = True
        self._replayed.clear()

    def renew(self) -> None:
        """Go on under another name: what the server would send again cannot be received."""
        self._token = secrets.token_urlsafe(24)

    def replays(self, channel: str, count: int) -> None:
        """Note that the next `count` events of a channel are sent again."""
        self._replayed[channel] = count

    def is_double(self, frame: Frame) -> bool:
        """Whether an event that is sent again was received before. Only those can come twice."""
        if not self.is_kept:
            return False
        channel = frame.channel or ""
        left = self._replayed.pop(channel, 0)
        if left > 1:
            self._replayed[channel] = left - 1
        key = _key(frame)
        if key is None:
            return False
        is_known = key in self._remembered
        if not is_known and len(self._remembered) >= MAX_REMEMBERED:
            self._remembered.popitem(last=False)
        self._remembered[key] = None
        return is_known and left > 0


def _key(frame: Frame) -> tuple[Any, ...] | None:
    """What identifies an event; None if it has no id."""
    if not isinstance(frame.data, str) or not frame.data.startswith("{"):
        return None
    try:
        ids = _ids.decode(frame.data)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None
    event_id = ids.nonce if ids.eventId is None else ids.eventId
    if not isinstance(event_id, str | int):
        return None
    return frame.channel, frame.event, event_id, hash(frame.data)
