"""Links: bytes in and out over one socket. The port `Link`, its two engines, and the epoll they wait on.

`PlainLink` registers its descriptor in our own epoll, which the loop watches as one descriptor: no transport, no
protocol object, and no buffer unless the kernel is full. `TransportLink` uses asyncio, for TLS and for systems without
epoll. tests/conformance/test_link.py checks the promises of both: bytes leave in the order of `write`; `write` never
blocks or raises; `on_closed` is called exactly once.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import socket
from collections import deque
from collections.abc import Callable
from typing import Protocol, cast

__all__ = ["Handler", "Link", "PlainLink", "Poller", "TransportLink"]

READ_BYTES = 65_536
EVENTS_PER_TURN = 512
MAX_JOIN = 64


class Handler(Protocol):
    """The protocol on a link: HTTP first, WebSocket after an upgrade."""

    def on_bytes(self, data: bytes) -> None: ...

    def on_closed(self, descriptor: int) -> None:
        """The link is closed; nothing more is received or sent. `descriptor` is the former `Link.descriptor`."""

    def on_backlog(self, descriptor: int) -> None:
        """The kernel's buffer is full: do not write to `descriptor` directly until `on_drained`."""

    def on_drained(self) -> None: ...


class Link(Protocol):
    """One socket."""

    handler: Handler

    @property
    def descriptor(self) -> int:
        """The descriptor if it may be written to directly, else -1."""

    @property
    def buffered(self) -> int:
        """Bytes accepted by `write` and not yet by the kernel."""

    def write(self, data: bytes) -> None: ...

    def drop_queued(self) -> None:
        """Drop queued data except a partly sent piece, so that no frame is cut in two."""

    def pause(self) -> None:
        """Stop reading until `resume`."""

    def resume(self) -> None: ...

    def finish(self) -> None:
        """Send what is queued, then shut down writing; the peer may still send."""

    def abort(self) -> None:
        """Close at once."""

    @property
    def peer(self) -> str:
        """The address of the peer."""


class Poller:
    """Our own epoll inside the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._epoll = select.epoll()
        self.links: dict[int, PlainLink] = {}
        loop.add_reader(self._epoll.fileno(), self._ready)

    def add(self, link: PlainLink, descriptor: int) -> None:
        self.links[descriptor] = link
        self._epoll.register(descriptor, select.EPOLLIN)

    def modify(self, descriptor: int, events: int) -> None:
        self._epoll.modify(descriptor, events)

    def remove(self, descriptor: int) -> None:
        del self.links[descriptor]
        with contextlib.suppress(OSError):
            self._epoll.unregister(descriptor)

    def close(self) -> None:
        self._loop.remove_reader(self._epoll.fileno())
        for link in tuple(self.links.values()):
            link.abort()
        self._epoll.close()

    def _ready(self) -> None:
        links = self.links
        for descriptor, events in self._epoll.poll(0, EVENTS_PER_TURN):
            link = links.get(descriptor)
            if link is not None:
                link.on_ready(events)


class PlainLink:
    """A TCP or Unix socket in our own epoll."""

    __slots__ = ("_descriptor", "_is_finishing", "_is_paused", "_outbox", "_poller", "buffered", "handler", "peer")

    def __init__(self, poller: Poller, descriptor: int, handler: Handler, peer: str | None = None) -> None:
        """`peer` is the address of the peer, if it is known already."""
        self._poller = poller
        self._descriptor = descriptor
        self._outbox: deque[bytes] | None = None
        self._is_finishing = self._is_paused = False
        self.buffered = 0
        self.handler = handler
        self.peer = _peer_of(descriptor) if peer is None else peer
        poller.add(self, descriptor)

    @property
    def descriptor(self) -> int:
        return self._descriptor if self._outbox is None and not self._is_finishing else -1

    def write(self, data: bytes) -> None:
        if self._descriptor < 0 or self._is_finishing:
            return
        if self._outbox is not None:
            self._outbox.append(data)
            self.buffered += len(data)
            return
        try:
            sent = os.write(self._descriptor, data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.abort()
            return
        if sent != len(data):
            self.hold(data[sent:])

    def hold(self, rest: bytes) -> None:
        """Queue what the kernel did not accept."""
        if self._descriptor < 0:
            return
        self._outbox = deque((rest,))
        self.buffered = len(rest)
        self._watch()
        self.handler.on_backlog(self._descriptor)

    def drop_queued(self) -> None:
        if self._outbox:
            first = self._outbox[0]
            self._outbox = deque((first,))
            self.buffered = len(first)

    def pause(self) -> None:
        if not self._is_paused and self._descriptor >= 0:
            self._is_paused = True
            self._watch()

    def resume(self) -> None:
        if self._is_paused and self._descriptor >= 0:
            self._is_paused = False
            self._watch()

    def finish(self) -> None:
        if self._descriptor < 0 or self._is_finishing:
            return
        self._is_finishing = True
        if self._outbox is None:
            self._shut()

    def abort(self) -> None:
        descriptor = self._descriptor
        if descriptor < 0:
            return
        direct = self.descriptor
        self._descriptor = -1
        self._outbox = None
        self.buffered = 0
        self._poller.remove(descriptor)
        try:
            self.handler.on_closed(direct)
        finally:
            os.close(descriptor)

    def on_ready(self, events: int) -> None:
        if events & select.EPOLLOUT:
            self._flush()
        if self._descriptor < 0 or not events & ~select.EPOLLOUT:
            return
        if self._is_paused:
            if events & (select.EPOLLHUP | select.EPOLLERR):
                self.abort()
            return
        try:
            data = os.read(self._descriptor, READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self.handler.on_bytes(data)
        else:
            self.abort()

    def _flush(self) -> None:
        outbox = self._outbox
        while outbox:
            piece = outbox[0] if len(outbox) == 1 else b"".join(list(outbox)[:MAX_JOIN])
            try:
                sent = os.write(self._descriptor, piece)
            except BlockingIOError:
                return
            except OSError:
                self.abort()
                return
            self.buffered -= sent
            whole = sent == len(piece)
            while sent:
                first = outbox.popleft()
                if sent < len(first):
                    outbox.appendleft(first[sent:])
                    break
                sent -= len(first)
            if not whole:
                return
        self._outbox = None
        self._watch()
        if self._is_finishing:
            self._shut()
        else:
            self.handler.on_drained()

    def _shut(self) -> None:
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(self._descriptor)) as copy:
            copy.shutdown(socket.SHUT_WR)

    def _watch(self) -> None:
        events = 0 if self._is_paused else select.EPOLLIN
        if self._outbox is not None:
            events |= select.EPOLLOUT
        self._poller.modify(self._descriptor, events)


def _peer_of(descriptor: int) -> str:
    view = socket.socket(fileno=descriptor)
    try:
        name = view.getpeername()
    except OSError:
        return "gone"
    finally:
        view.detach()
    return str(name[0]) if isinstance(name, tuple) else "unix"


class TransportLink(asyncio.Protocol):
    """A link over an asyncio transport: for TLS, or without epoll. `descriptor` is always -1."""

    descriptor = -1

    def __init__(self, make_handler: Callable[[Link], Handler]) -> None:
        self._make_handler = make_handler
        self.handler: Handler
        self._transport: asyncio.Transport | None = None
        self._is_behind = False
        self._is_finishing = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # What create_server passes; uvloop's TLS transports have these methods without being of this class.
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=65_536, low=0)
        self.handler = self._make_handler(self)

    @property
    def buffered(self) -> int:
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    @property
    def peer(self) -> str:
        name = None if self._transport is None else self._transport.get_extra_info("peername")
        return str(name[0]) if isinstance(name, tuple) else "gone"

    def write(self, data: bytes) -> None:
        if self._transport is not None and not self._is_finishing:
            self._transport.write(data)

    def drop_queued(self) -> None:
        """Does nothing: the transport's buffer cannot be cut. It is bounded because its user closes at the limit."""

    def pause(self) -> None:
        if self._transport is not None and self._transport.is_reading():
            self._transport.pause_reading()

    def resume(self) -> None:
        if self._transport is not None and not self._transport.is_closing() and not self._transport.is_reading():
            self._transport.resume_reading()

    def finish(self) -> None:
        if self._transport is not None and not self._is_finishing:
            self._is_finishing = True
            # TLS cannot be half-closed: close once the queue is written.
            self._transport.close()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        self.handler.on_bytes(data)

    def pause_writing(self) -> None:
        self._is_behind = True
        self.handler.on_backlog(-1)

    def resume_writing(self) -> None:
        if self._is_behind:
            self._is_behind = False
            self.handler.on_drained()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self.handler.on_closed(-1)
