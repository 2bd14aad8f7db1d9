"""Accepts connections: plain ones into our own epoll, TLS through asyncio."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import ssl
from collections.abc import Callable

import structlog

from smartlink.server.link import Handler, Link, PlainLink, Poller, TransportLink

__all__ = ["PlainListener", "TlsListener", "open_socket"]

ACCEPTS_PER_TURN = 256
BACK_OFF_S = 0.5
_NO_DESCRIPTORS = frozenset({errno.EMFILE, errno.ENFILE})

log = structlog.get_logger(__name__)


def open_socket(host: str, port: int, backlog: int) -> socket.socket:
    """A listening socket, not blocking. Raises OSError, as when the port is taken."""
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(backlog)
    except OSError:
        listener.close()
        raise
    listener.setblocking(False)
    return listener


class _Nobody:
    """Stands in as handler until the connection's own is made."""

    def on_bytes(self, data: bytes) -> None: ...

    def on_closed(self, descriptor: int) -> None: ...

    def on_behind(self, descriptor: int) -> None: ...

    def on_caught_up(self) -> None: ...


_NOBODY = _Nobody()


class PlainListener:
    """Accepts on one socket. Out of descriptors it gives one back to refuse with, waits, and says so once."""

    def __init__(self, listener: socket.socket, poller: Poller, handler: Callable[[Link], Handler]) -> None:
        self._socket = listener
        self._poller = poller
        self._handler = handler
        self._loop = asyncio.get_running_loop()
        self._spare = os.open(os.devnull, os.O_RDONLY)
        self._is_exhausted = False
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
            accepted.setblocking(False)
            with contextlib.suppress(OSError):
                accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            link = PlainLink(self._poller, accepted.detach(), _NOBODY)
            link.handler = self._handler(link)
        self._is_exhausted = False

    def _shed(self) -> None:
        if not self._is_exhausted:
            self._is_exhausted = True
            log.error("out of file descriptors: new connections are refused; raise the limit (ulimit -n)")
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
        cls, listener: socket.socket, context: ssl.SSLContext, handler: Callable[[Link], Handler]
    ) -> TlsListener:
        loop = asyncio.get_running_loop()
        return cls(
            await loop.create_server(
                lambda: TransportLink(handler), sock=listener, ssl=context, ssl_handshake_timeout=10
            )
        )

    def close(self) -> None:
        """Stop accepting and close the socket."""
        self._server.close()
