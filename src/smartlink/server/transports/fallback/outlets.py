"""Outlets: a response of this node, or one that another node holds open."""

from __future__ import annotations

import contextlib
from typing import Protocol

import msgspec

from smartlink.server.cluster.brokers.base import BrokerUnavailable, Control, Publication
from smartlink.server.core.client import ClientSettings
from smartlink.server.core.node import Node
from smartlink.server.net.requests import ResponseStream
from smartlink.server.transports.fallback.link import Outlet

__all__ = [
    "ATTACH",
    "LOST",
    "LocalOutlet",
    "OutletOwner",
    "RemoteOutlet",
    "RemoteStream",
    "end_remote_stream",
    "session_channel",
    "stream_channel",
]

ATTACH, LOST = "xhr_attach", "xhr_lost"
STALLED_S = 8.0
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(str).decode
ASK_EVERY_S = 10.0
"""How often a node with a stream checks that its owner is alive."""


def session_channel(session: str) -> str:
    """The internal channel that records in the presence store that some node has the session."""
    return f"#xhr-{session}"


def stream_channel(stream: str) -> str:
    """The channel of lines from a session's owner to the node that holds this stream, as JSON text; "" ends it."""
    return f"#xhr-out-{stream}"


async def end_remote_stream(node: Node, app_id: str, stream: str) -> None:
    """Tell the node that holds this stream to end it; while nodes cannot reach each other it finds out by itself."""
    with contextlib.suppress(BrokerUnavailable):
        await node.tell(Publication(app_id, stream_channel(stream), _encode("")))


class OutletOwner(Protocol):
    """Receives the events of an outlet: the `XhrLink`."""

    def lost(self, outlet: Outlet) -> None: ...

    def outlet_backlogged(self, outlet: Outlet) -> None: ...

    def outlet_drained(self, outlet: Outlet) -> None: ...

    def abort(self) -> None: ...


class LocalOutlet:
    """A response to a request that reached this node."""

    def __init__(self, stream: ResponseStream, owner: OutletOwner, *, is_poll: bool) -> None:
        self.is_poll = is_poll
        self._stream = stream
        self._owner = owner
        stream.listener = self

    @property
    def is_lost(self) -> bool:
        return self._stream.is_lost

    @property
    def buffered(self) -> int:
        return self._stream.buffered

    def write(self, lines: bytes) -> None:
        self._stream.write(lines)

    def drop_queued(self) -> None:
        self._stream.drop_queued()

    def end(self) -> None:
        self._stream.end()

    def abort(self) -> None:
        self._stream.abort()

    def on_lost(self) -> None:
        self._owner.lost(self)

    def on_backlog(self) -> None:
        self._owner.outlet_backlogged(self)

    def on_drained(self) -> None:
        self._owner.outlet_drained(self)


class RemoteOutlet:
    """A response that another node writes. Lines are published one at a time to keep their order."""

    def __init__(self, node: Node, app_id: str, stream: str, owner: OutletOwner, *, is_poll: bool) -> None:
        self.is_poll = is_poll
        self.is_lost = False
        self.stream = stream
        self._node = node
        self._app_id = app_id
        self._owner = owner
        self._waiting: list[bytes] = []
        self._on_its_way = 0
        self._is_ending = False
        self._is_over = False

    @property
    def buffered(self) -> int:
        return self._on_its_way + sum(map(len, self._waiting))

    def write(self, lines: bytes) -> None:
        if lines and not self._is_ending:  # no head needed: the other node writes it
            self._waiting.append(lines)
            self._send()

    def drop_queued(self) -> None:
        self._waiting.clear()

    def end(self) -> None:
        if not self._is_ending:
            self._is_ending = True
            self._send()

    def abort(self) -> None:
        """Tell the other node the end, since it would ask a missing owner."""
        self.end()

    def _send(self) -> None:
        if not self._on_its_way and not self._is_over:
            self._on_its_way = 1
            self._node.tasks.run(self._send_all())

    async def _send_all(self) -> None:
        channel = stream_channel(self.stream)
        try:
            while self._waiting:
                lines = b"".join(self._waiting)
                self._waiting.clear()
                self._on_its_way = len(lines)
                await self._node.tell(Publication(self._app_id, channel, _encode(lines.decode())))
            if self._is_ending:
                self._is_over = True
                await self._node.tell(Publication(self._app_id, channel, _encode("")))
        except BrokerUnavailable:
            # Lines in flight are lost: the client has to start again.
            self.is_lost = self._is_over = True
            self._owner.abort()
        finally:
            self._on_its_way = 0


class RemoteStream:
    """A response of this node to a client that another node owns: writes the lines received from it."""

    def __init__(
        self, shared: ClientSettings, app_id: str, session: str, stream_id: str, stream: ResponseStream
    ) -> None:
        self._node = shared.node
        self._sweeper = shared.sweeper
        self._max_backlog_bytes = shared.max_backlog_bytes
        self._app_id = app_id
        self._session = session
        self._id = stream_id
        self._stream = stream
        self._behind_since = 0.0
        self._asked_at = shared.sweeper.now()
        self._is_over = False

    async def open(self, *, is_poll: bool) -> None:
        """Request lines from the owner. Raises BrokerUnavailable."""
        self._stream.listener = self
        self._sweeper.add(self)
        await self._node.subscribe_internal(self._app_id, stream_channel(self._id), self._subscribe)
        kind = "poll" if is_poll else "stream"
        try:
            await self._node.tell(Control(self._app_id, ATTACH, self._session, f"{kind} {self._id}"))
        except BrokerUnavailable:
            self._end()
            raise
        if self._stream.is_lost:
            self.on_lost()
        elif not self._is_over:
            self._stream.write(b"")

    def on_lost(self) -> None:
        if not self._is_over:
            self._end()
            self._node.tasks.run(self._send_lost())

    def on_backlog(self) -> None:
        self._behind_since = self._sweeper.now()

    def on_drained(self) -> None:
        self._behind_since = 0.0

    def sweep(self, now: float) -> None:
        if self._behind_since and now - self._behind_since > STALLED_S:
            self._cut()
        elif now - self._asked_at >= ASK_EVERY_S:
            self._asked_at = now
            self._node.tasks.run(self._probe())

    async def _probe(self) -> None:
        count = await self._node.presence.count(self._app_id, session_channel(self._session))
        if not count.subscriptions and not self._is_over:
            self._end()
            self._stream.abort()

    async def _send_lost(self) -> None:
        # While nodes cannot reach each other the owner finds out by itself: its pings go unanswered.
        with contextlib.suppress(BrokerUnavailable):
            await self._node.tell(Control(self._app_id, LOST, self._session, self._id))

    def _subscribe(self, frame: bytes) -> None:
        if self._is_over:
            return
        try:
            lines = _decode(frame).encode()
        except msgspec.DecodeError:
            self._node.metrics.bus_messages_dropped += 1
            return
        if lines:
            self._stream.write(lines)
            if self._stream.buffered > self._max_backlog_bytes:
                self._cut()
        else:
            self._end()
            self._stream.end()

    def _cut(self) -> None:
        """End the stream of a client that reads too slowly."""
        self._node.metrics.slow_consumers += 1
        self._stream.abort()
        self.on_lost()

    def _end(self) -> None:
        self._is_over = True
        self._sweeper.discard(self)
        self._node.tasks.run(self._node.unsubscribe_internal(self._app_id, stream_channel(self._id)))
