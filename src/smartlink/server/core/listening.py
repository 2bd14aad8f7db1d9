"""Which channels this node subscribes to at the broker: those that a connection here is on, or is joining.

Between the broker's subscription and its entry in the hub a connection may have to wait for engines. Publications that
arrive meanwhile are kept in its `Arriving`, so that there is no gap between its state and later publications.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from smartlink.protocol import encoding
from smartlink.server.cluster.brokers.base import Broker, Publication, left_out_parts
from smartlink.server.core.fanout import MAX_PENDING_BYTES
from smartlink.server.core.hub import Hub

__all__ = ["Arriving", "Listening", "VersionedFrame", "newer_frames"]


class VersionedFrame(NamedTuple):
    """A frame, with the version and the position of its publication."""

    frame: bytes
    version: int
    position: int = 0


def newer_frames(frames: list[VersionedFrame], state: bytes, version: int) -> list[bytes]:
    """Drop the frames whose changes `state`, read after or among them, already includes. Returns the others.

    Changes with a version are compared with the state's. Of the others, the last change of each user counts: when it
    agrees with the state, all of that user's changes are dropped.
    """
    if not frames:
        return []
    if version:
        frames = [each for each in frames if not 0 < each.version <= version]
    unnumbered = [each.frame for each in frames if not (each.version and version)]
    kept = _without_known(unnumbered, state)
    if len(kept) == len(unnumbered):
        return [each.frame for each in frames]
    return [each.frame for each in frames if (each.version and version) or each.frame in kept]


def _without_known(frames: list[bytes], state: bytes) -> list[bytes]:
    changes = {frame: member for frame in frames if (member := encoding.member_in(frame)) is not None}
    if not changes:
        return frames
    present = encoding.present_in(state)
    has_come = dict(changes[frame] for frame in frames if frame in changes)
    return [
        frame
        for frame in frames
        if frame not in changes or has_come[changes[frame][0]] != (changes[frame][0] in present)
    ]


class Arriving:
    """A connection that is joining a channel, and the durable frames that arrived meanwhile."""

    __slots__ = ("_size", "frames", "socket_id", "user_id")

    def __init__(self, socket_id: str, user_id: str | None) -> None:
        self.socket_id = socket_id
        self.user_id = user_id
        self.frames: list[VersionedFrame] = []
        self._size = 0

    @property
    def is_swamped(self) -> bool:
        """Whether more arrived than can be held: then `frames` is incomplete."""
        return self._size > MAX_PENDING_BYTES

    def take(self, publication: Publication) -> None:
        """Keep a publication for the connection, unless it is live or leaves its client out."""
        self._size += len(publication.frame)
        if publication.except_socket is not None:
            socket_id, user_id = left_out_parts(publication.except_socket)
            if socket_id == self.socket_id or (user_id is not None and user_id == self.user_id):
                return
        if not self.is_swamped and not publication.is_live:
            self.frames.append(VersionedFrame(publication.frame, publication.version, publication.position))


class Listening:
    """Subscribes to channels at the broker, and unsubscribes when no connection here needs them."""

    def __init__(self, hub: Hub, broker: Broker) -> None:
        self._hub = hub
        self._broker = broker
        self._arriving: dict[tuple[str, str], list[Arriving]] = {}
        self._handlers: dict[tuple[str, str], Callable[[bytes], None]] = {}

    def expect(self, app_id: str, channel: str, socket_id: str, user_id: str | None = None) -> Arriving:
        """Keep what arrives on the channel for a connection, until `arrived`."""
        arriving = Arriving(socket_id, user_id)
        self._arriving.setdefault((app_id, channel), []).append(arriving)
        return arriving

    async def begin(self, app_id: str, channel: str) -> None:
        """Subscribe this node to the channel, unless it is."""
        if self._hub.channel(app_id, channel) is None:
            await self._broker.subscribe(app_id, channel)

    def arrived(self, app_id: str, channel: str, arriving: Arriving) -> None:
        """Stop keeping publications for a connection. Add it to the hub in the same step, so that none are missed."""
        joining = self._arriving[app_id, channel]
        joining.remove(arriving)
        if not joining:
            del self._arriving[app_id, channel]

    async def end(self, app_id: str, channel: str) -> None:
        """Unsubscribe this node from the channel, unless a connection here is on it or joining it."""
        key = (app_id, channel)
        if self._hub.channel(app_id, channel) is None and key not in self._arriving and key not in self._handlers:
            await self._broker.unsubscribe(app_id, channel)

    async def subscribe_internal(self, app_id: str, channel: str, handler: Callable[[bytes], None]) -> None:
        """Pass frames on one of the server's own channels to `handler`, until `unsubscribe_internal`."""
        self._handlers[app_id, channel] = handler
        await self._broker.subscribe(app_id, channel)

    async def unsubscribe_internal(self, app_id: str, channel: str) -> None:
        """Undo `subscribe_internal`."""
        self._handlers.pop((app_id, channel), None)
        await self.end(app_id, channel)

    def take(self, publication: Publication) -> None:
        """Pass a publication to the connections that are joining its channel, and to the channel's handler."""
        if self._handlers and (handler := self._handlers.get((publication.app_id, publication.channel))) is not None:
            handler(publication.frame)
        if self._arriving:
            for arriving in self._arriving.get((publication.app_id, publication.channel), ()):
                arriving.take(publication)
