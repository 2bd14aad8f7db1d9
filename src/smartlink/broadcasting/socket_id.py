"""The socket of the current request, so that `to_others` can exclude it.

Echo sends the socket's id as `X-Socket-ID`. The middleware keeps it in a context variable for the request. It
authorizes nothing, and a malformed one is ignored, since it ends up in calls of the HTTP API.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, MutableMapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from smartlink.protocol.names import is_valid_socket_id

__all__ = ["SocketIdMiddleware", "SocketIdWsgiMiddleware", "current_socket_id", "from_socket"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
WSGIApp = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

_HEADER = b"x-socket-id"

_current: ContextVar[str | None] = ContextVar("smartlink_socket_id", default=None)


def current_socket_id() -> str | None:
    """Return the socket id of the current request; None outside a request or without one."""
    return _current.get()


@contextmanager
def from_socket(socket_id: str | None) -> Iterator[None]:
    """Within the block, use `socket_id` as the current request's: for background jobs and tests.

    A malformed one is ignored, as in a request.
    """
    token = _current.set(socket_id if is_valid_socket_id(socket_id) else None)
    try:
        yield
    finally:
        _current.reset(token)


class SocketIdMiddleware:
    """ASGI middleware that makes `current_socket_id()` work within each HTTP request."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        with from_socket(_socket_id_in(scope)):
            await self._app(scope, receive, send)


class SocketIdWsgiMiddleware:
    """WSGI middleware that makes `current_socket_id()` work within each request: Flask, Django behind WSGI."""

    def __init__(self, app: WSGIApp) -> None:
        self._app = app

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        # Set and left set: the body may be produced after this returns. The thread's next request sets its own.
        socket_id = environ.get("HTTP_X_SOCKET_ID")
        _current.set(socket_id if is_valid_socket_id(socket_id) else None)
        return self._app(environ, start_response)


def _socket_id_in(scope: Scope) -> str | None:
    named: list[bytes] = [value for name, value in scope["headers"] if name == _HEADER]
    if len(named) != 1:
        return None
    return named[0].decode("latin-1")
