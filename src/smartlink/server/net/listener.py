"""Accepts connections: plain ones into our own epoll, TLS ones through asyncio."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import ssl
import time
from collections.abc import Callable, Coroutine
from typing import Any

import structlog

from smartlink.server.net.capacity import Capacity
from smartlink.server.net.link import Handler, Link, PlainLink, Poller, TransportLink
from smartlink.server.net.requests import HttpError, encode
from smartlink.throttle import Throttle

__all__ = ["Listener"]

ACCEPTS_PER_TURN = 256
BACK_OFF_S = 0.5
HANDSHAKE_S = 10.0
_FULL = encode(HttpError(503, "Too many connections", {"Retry-After": "1"}).response(), closes=True)
_NO_DESCRIPTORS = frozenset({errno.EMFILE, errno.ENFILE})

log = structlog.get_logger(__name__)


class _NullHandler:
    """The handler until the connection's own is created."""

    def on_bytes(self, data: bytes) -> None: ...

    def on_closed(self, descriptor: int) -> None: ...

    def on_backlog(self, descriptor: int) -> None: ...

    def on_drained(self) -> None: ...


_NOBODY = _NullHandler()


class Listener:
    """Accepts on one socket, over TLS if there is a `context`.

    When out of descriptors, it frees one to refuse with, backs off, and logs this once a minute.
    """

    def __init__(
        self,
        listener: socket.socket,
        poller: Poller,
        capacity: Capacity,
        handler: Callable[[Link], Handler],
        context: ssl.SSLContext | None = None,
    ) -> None:
        self._socket = listener
        self._capacity = capacity
        capacity.plain = poller.links
        self._poller = poller
        self._handler = handler
        self._context = context
        self._loop = asyncio.get_running_loop()
        self._handshakes: set[_Handshake] = set()
        with contextlib.suppress(OSError):  # accepted sockets inherit it; a Unix socket has no such option
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._spare = os.open(os.devnull, os.O_RDONLY)
        self._throttle = Throttle(clock=self._loop.time)
        self._is_closed = False
        self._loop.add_reader(listener.fileno(), self._accept)

    def close(self) -> None:
        """Stop accepting and close the socket. Those who wait to be accepted are, lest they be reset."""
        if not self._is_closed:
            self._accept()
            self._is_closed = True
            self._loop.remove_reader(self._socket.fileno())
            self._socket.close()
            os.close(self._spare)
            for handshake in tuple(self._handshakes):
                handshake.evict()

    def _accept(self) -> None:
        for _ in range(ACCEPTS_PER_TURN):
            try:
                accepted, address = self._socket.accept()
            except (BlockingIOError, ConnectionAbortedError, InterruptedError):
                return
            except OSError as error:
                if error.errno in _NO_DESCRIPTORS:
                    self._shed()
                    return
                raise
            if not self._capacity.make_room():
                self._refuse(accepted)
                continue
            accepted.setblocking(False)
            if self._context is None:
                peer = address[0] if isinstance(address, tuple) else "unix"
                link = PlainLink(self._poller, accepted.detach(), _NOBODY, peer)
                link.handler = self._handler(link)
            else:
                _Handshake(self._handshakes, self._capacity, self._shake(accepted, self._context))

    async def _shake(self, accepted: socket.socket, context: ssl.SSLContext) -> None:
        try:
            await self._loop.connect_accepted_socket(
                lambda: _CountedLink(self._handler, self._capacity),
                accepted,
                ssl=context,
                ssl_handshake_timeout=HANDSHAKE_S,
            )
        except OSError:  # the peer did not finish the handshake
            accepted.close()

    def _refuse(self, accepted: socket.socket) -> None:
        self._log_exhausted()
        with accepted, contextlib.suppress(OSError):
            accepted.setblocking(False)
            if self._context is None:
                accepted.send(_FULL)

    def _log_exhausted(self) -> None:
        if self._throttle.allows():
            log.error("out of file descriptors, refusing new connections: raise the limit (ulimit -n)")

    def _shed(self) -> None:
        """Back off: the rest of the process holds all descriptors."""
        if self._capacity.evict_idle():
            return
        self._log_exhausted()
        os.close(self._spare)
        with contextlib.suppress(OSError):
            refused, _ = self._socket.accept()
            refused.close()
        self._spare = os.open(os.devnull, os.O_RDONLY)
        self._loop.remove_reader(self._socket.fileno())
        self._loop.call_later(BACK_OFF_S, self._accept_again)

    def _accept_again(self) -> None:
        if not self._is_closed:
            self._loop.add_reader(self._socket.fileno(), self._accept)


class _Handshake:
    """A TLS handshake in progress: counts as a connection and may be evicted."""

    def __init__(self, open_ones: set[_Handshake], capacity: Capacity, shake: Coroutine[Any, Any, None]) -> None:
        self.idle_since = time.monotonic()
        self._open = open_ones
        self._capacity = capacity
        self._open.add(self)
        capacity.handshakes.add(self)
        capacity.evictable.add(self)
        self._task = asyncio.get_running_loop().create_task(shake)
        self._task.add_done_callback(self._end)

    def evict(self) -> None:
        self._task.cancel()
        self._leave()

    def _end(self, task: asyncio.Task[None]) -> None:
        self._leave()
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("internal error", exc_info=error)

    def _leave(self) -> None:
        self._open.discard(self)
        self._capacity.handshakes.discard(self)
        self._capacity.evictable.discard(self)


class _CountedLink(TransportLink):
    """A TLS connection, counted while it is open."""

    def __init__(self, handler: Callable[[Link], Handler], capacity: Capacity) -> None:
        super().__init__(handler)
        self._capacity = capacity

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._capacity.over_tls.add(self)
        super().connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._capacity.over_tls.discard(self)
        super().connection_lost(exc)
