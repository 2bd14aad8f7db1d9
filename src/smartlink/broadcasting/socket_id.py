"""To others: which socket the current request came from, so that it can be left out.

Echo sends the socket's id along as `X-Socket-ID`. The middleware keeps it in a context variable for the request;
nothing is ever authorised by it, and a malformed one is ignored, since it ends up in calls of the HTTP API.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from contextvars import ContextVar
from typing import Any

from smartlink.protocol.names import is_valid_socket_id

__all__ = ["SocketIdMiddleware", "current_socket_id"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

_HEADER = b"x-socket-id"

_current: ContextVar[str | None] = ContextVar("smartlink_socket_id", default=None)


def current_socket_id() -> str | None:
    """The socket id the current request named; None outside a request, or when it named none."""
    return _current.get()


class SocketIdMiddleware:
    """ASGI middleware that makes `current_socket_id()` work within each HTTP request."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        token = _current.set(_socket_id_in(scope))
        try:
            await self._app(scope, receive, send)
        finally:
            _current.reset(token)


def _socket_id_in(scope: Scope) -> str | None:
    named = [value for name, value in scope["headers"] if name == _HEADER]
    if len(named) != 1:
        return None
    text = named[0].decode("latin-1")
    return text if is_valid_socket_id(text) else None
