"""Accepts connections: plain ones into our own epoll, TLS through asyncio."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import ssl
from collections.abc import Callable, Sized

import structlog

from smartlink.server.link import Handler, Link, PlainLink, Poller, TransportLink
from smartlink.server.requests import HttpError, encode

__all__ = ["Links", "PlainListener", "TlsListener"]

ACCEPTS_PER_TURN = 256
BACK_OFF_S = 0.5
KEPT_FOR_FILES = 64
KEPT_FOR_HTTP = 64
SAY_EVERY_S = 60.0
_FULL = encode(HttpError(503, "Too many connections here", {"Retry-After": "1"}).response(), closes=True)
_NO_DESCRIPTORS = frozenset({errno.EMFILE, errno.ENFILE})

log = structlog.get_logger(__name__)


class Links:
    """Counts the open connections of a server, and says when there are too many for its descriptors.

    `limit` is what the process may have. Some are kept for what is not a connection, and some that only the HTTP API
    gets: publishers and health checks are served while clients are refused.
    """

    def __init__(self, limit: int) -> None:
        self._most = max(limit - KEPT_FOR_FILES, 1)
        self._most_clients = max(self._most - min(KEPT_FOR_HTTP, self._most // 4), 1)
        self.plain: Sized = ()
        self.over_tls: set[TransportLink] = set()

    def __len__(self) -> int:
        return len(self.plain) + len(self.over_tls)

    @property
    def has_room(self) -> bool:
        """Whether one more connection may be accepted."""
        return len(self) <= self._most

    @property
    def has_room_for_client(self) -> bool:
        """Whether a connection that has been accepted may stay for long."""
        return len(self) <= self._most_clients


class _Nobody:
    """Stands in as handler until the connection's own is made."""

    def on_bytes(self, data: bytes) -> None: ...

    def on_closed(self, descriptor: int) -> None: ...

    def on_behind(self, descriptor: int) -> None: ...

    def on_caught_up(self) -> None: ...


_NOBODY = _Nobody()


class PlainListener:
    """Accepts on one socket. Out of descriptors it gives one back to refuse with, waits, and says so once a minute."""

    def __init__(
        self, listener: socket.socket, poller: Poller, links: Links, handler: Callable[[Link], Handler]
    ) -> None:
        self._socket = listener
        self._links = links
        links.plain = poller.links
        self._poller = poller
        self._handler = handler
        self._loop = asyncio.get_running_loop()
        self._spare = os.open(os.devnull, os.O_RDONLY)
        self._said_at = -SAY_EVERY_S
        self._is_closed = False
        self._loop.add_reader(listener.fileno(), self._accept)

    def close(self) -> None:
        """Stop accepting and close the socket."""
        if not self._is_closed:
            self._is_closed = True
            self._loop.remove_reader(self._socket.fileno())
            self._socket.close()
            os.close(self._spare)

    def _accept(self) -> None:
        for _ in range(ACCEPTS_PER_TURN):
            try:
                accepted, _ = self._socket.accept()
            except (BlockingIOError, ConnectionAbortedError, InterruptedError):
                return
            except OSError as error:
                if error.errno in _NO_DESCRIPTORS:
                    self._shed()
                    return
                raise
            if not self._links.has_room:
                self._refuse(accepted)
                continue
            accepted.setblocking(False)
            with contextlib.suppress(OSError):
                accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            link = PlainLink(self._poller, accepted.detach(), _NOBODY)
            link.handler = self._handler(link)

    def _refuse(self, accepted: socket.socket) -> None:
        self._say_exhausted()
        with accepted, contextlib.suppress(OSError):
            accepted.setblocking(False)
            accepted.send(_FULL)

    def _say_exhausted(self) -> None:
        now = self._loop.time()
        if now - self._said_at >= SAY_EVERY_S:
            self._said_at = now
            log.error("out of file descriptors: new connections are refused; raise the limit (ulimit -n)")

    def _shed(self) -> None:
        self._say_exhausted()
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


class TlsListener:
    """Accepts on one socket with TLS."""

    def __init__(self, server: asyncio.Server) -> None:
        self._server = server

    @classmethod
    async def open(
        cls, listener: socket.socket, context: ssl.SSLContext, links: Links, handler: Callable[[Link], Handler]
    ) -> TlsListener:
        loop = asyncio.get_running_loop()
        return cls(
            await loop.create_server(
                lambda: _CountedLink(handler, links), sock=listener, ssl=context, ssl_handshake_timeout=10
            )
        )

    def close(self) -> None:
        """Stop accepting and close the socket."""
        self._server.close()


class _CountedLink(TransportLink):
    """Ends at once where there is no room for it; else counts while it is open."""

    def __init__(self, handler: Callable[[Link], Handler], links: Links) -> None:
        super().__init__(handler)
        self._links = links

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._links.over_tls.add(self)
        super().connection_made(transport)
        if not self._links.has_room:
            self.write(_FULL)
            self.finish()

    def connection_lost(self, exc: Exception | None) -> None:
        self._links.over_tls.discard(self)
        super().connection_lost(exc)
