"""Which channels this node hears from the broker: those somebody here is on, or is on the way to.

Between asking the broker for a channel and standing in the hub a connection may have to wait for engines. What comes
on the channel meanwhile is kept in its `Arriving`, so that the state it is told and what it hears afterwards leave no
gap.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from smartlink.protocol import encoding
from smartlink.server.cluster.brokers.base import Broker, Publication
from smartlink.server.core.fanout import MAX_PENDING_BYTES
from smartlink.server.core.hub import Hub

__all__ = ["Arriving", "Listening", "news"]


Told = tuple[bytes, int]
"""A frame, and the number of the coming or going it tells (`presence.base.State`), or 0."""


class _Ids(msgspec.Struct):
    ids: frozenset[str | int]


class _State(msgspec.Struct):
    presence: _Ids


_state = msgspec.json.Decoder(_State).decode


def news(told: list[Told], state: bytes, version: int) -> list[bytes]:
    """The frames without the comings and goings that `state`, read after them or among them, shows already.

    Of those that have a number it decides. Else the last word about each user counts: agrees it with the state, nothing
    about that user is news.
    """
    if version:
        told = [(frame, number) for frame, number in told if not 0 < number <= version]
    unnumbered = [frame for frame, number in told if not (number and version)]
    kept = _without_known(unnumbered, state)
    if len(kept) == len(unnumbered):
        return [frame for frame, _ in told]
    return [frame for frame, number in told if (number and version) or frame in kept]


def _without_known(frames: list[bytes], state: bytes) -> list[bytes]:
    told = {frame: member for frame in frames if (member := encoding.member_in(frame)) is not None}
    if not told:
        return frames
    present = {str(user_id) for user_id in _state(state).presence.ids}
    comes = dict(told[frame] for frame in frames if frame in told)
    return [frame for frame in frames if frame not in told or comes[told[frame][0]] != (told[frame][0] in present)]


class Arriving:
    """A connection on its way onto a channel, and the durable frames that came meanwhile."""

    __slots__ = ("_size", "socket_id", "told")

    def __init__(self, socket_id: str) -> None:
        self.socket_id = socket_id
        self.told: list[Told] = []
        self._size = 0

    @property
    def is_swamped(self) -> bool:
        """Whether more came than can be held: then `told` is not whole."""
        return self._size > MAX_PENDING_BYTES

    def take(self, publication: Publication) -> None:
        self._size += len(publication.frame)
        if not self.is_swamped and not publication.is_live and publication.except_socket != self.socket_id:
            self.told.append((publication.frame, publication.version))


class Listening:
    """Asks the broker for channels, and gives them up when nobody here needs them any more."""

    def __init__(self, hub: Hub, broker: Broker) -> None:
        self._hub = hub
        self._broker = broker
        self._arriving: dict[tuple[str, str], list[Arriving]] = {}
        self._ears: dict[tuple[str, str], Callable[[bytes], None]] = {}

    def expect(self, app_id: str, channel: str, socket_id: str) -> Arriving:
        """Keep for a connection what comes on the channel, until `arrived`."""
        arriving = Arriving(socket_id)
        self._arriving.setdefault((app_id, channel), []).append(arriving)
        return arriving

    async def begin(self, app_id: str, channel: str) -> None:
        """Hear the channel from now on."""
        if self._hub.channel(app_id, channel) is None:
            await self._broker.subscribe(app_id, channel)

    def arrived(self, app_id: str, channel: str, arriving: Arriving) -> None:
        """The way is over, wherever it led; join the hub in the same step."""
        on_their_way = self._arriving[app_id, channel]
        on_their_way.remove(arriving)
        if not on_their_way:
            del self._arriving[app_id, channel]

    async def end(self, app_id: str, channel: str) -> None:
        """Hear the channel no more, unless somebody here is on it or on the way to it."""
        key = (app_id, channel)
        if self._hub.channel(app_id, channel) is None and key not in self._arriving and key not in self._ears:
            await self._broker.unsubscribe(app_id, channel)

    async def subscribe_internal(self, app_id: str, channel: str, ear: Callable[[bytes], None]) -> None:
        """Hand what comes on one of the server's own channels to `ear`, until `unsubscribe_internal`."""
        self._ears[app_id, channel] = ear
        await self._broker.subscribe(app_id, channel)

    async def unsubscribe_internal(self, app_id: str, channel: str) -> None:
        self._ears.pop((app_id, channel), None)
        await self.end(app_id, channel)

    def take(self, publication: Publication) -> None:
        """Hand what came to those who are on their way, and to whoever attends."""
        if self._ears and (ear := self._ears.get((publication.app_id, publication.channel))) is not None:
            ear(publication.frame)
        if self._arriving:
            for arriving in self._arriving.get((publication.app_id, publication.channel), ()):
                arriving.take(publication)
