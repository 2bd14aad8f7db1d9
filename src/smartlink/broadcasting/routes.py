"""The ASGI app for Echo: `…/auth` authorizes a socket for channels, `…/user-auth` signs a user in.

Mount it at `/broadcasting`. It answers with a `ChannelAuthorizer`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Generic, TypeVar

from smartlink.broadcasting.authorizer import (
    MAX_BODY_BYTES,
    AuthRequest,
    AuthResponse,
    ChannelAuthorizer,
    RequestRefused,
)
from smartlink.broadcasting.socket_id import Message, Receive, Scope, Send

__all__ = ["BroadcastingAuth", "RequestRefused"]

User = TypeVar("User")
Authenticate = Callable[[Scope], Awaitable[User | None]]


class ClientGone(Exception):
    """The client disconnected while its body was read."""


class BroadcastingAuth(Generic[User]):
    """Serves a `ChannelAuthorizer` over ASGI.

    `authenticate` gets the ASGI scope and returns the user, or None for 401; it may raise `RequestRefused`. Pass a
    mapping of names to functions for several guards; the first is for rules without guards.
    """

    def __init__(
        self, authorizer: ChannelAuthorizer[User], authenticate: Authenticate[User] | Mapping[str, Authenticate[User]]
    ) -> None:
        self._authorizer = authorizer
        self._guards = authenticate if isinstance(authenticate, Mapping) else {"default": authenticate}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not await is_http(scope, send):
            return
        request = AuthRequest(
            method=scope["method"],
            path=scope["path"],
            read=partial(read_body, scope, receive),
            content_type=_header(scope, b"content-type"),
            query=scope.get("query_string", b"").decode("latin-1"),
        )
        guards = {name: partial(guard, scope) for name, guard in self._guards.items()}
        try:
            answer = await self._authorizer.answer(request, guards)
        except ClientGone:
            return
        await respond(send, answer)


async def is_http(scope: Scope, send: Send) -> bool:
    """Return whether it is an HTTP request. Closes WebSockets; raises RuntimeError for `lifespan`, as ASGI requires."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1000})
    elif scope["type"] != "http":
        raise RuntimeError(f"this app answers HTTP, not {scope['type']}")
    return bool(scope["type"] == "http")


async def read_body(scope: Scope, receive: Receive) -> bytes:
    """Return a request's body. Raises RequestRefused above 64 KiB, ClientGone if the client disconnects."""
    declared = _header(scope, b"content-length")
    if declared.isascii() and declared.isdigit() and (len(declared) > 9 or int(declared) > MAX_BODY_BYTES):
        raise RequestRefused(413, f"The body is larger than {MAX_BODY_BYTES} bytes.", {"connection": "close"})
    chunks: list[bytes] = []
    size, more = 0, True
    while more:
        message: Message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > MAX_BODY_BYTES:
            raise RequestRefused(413, f"The body is larger than {MAX_BODY_BYTES} bytes.", {"connection": "close"})
        chunks.append(chunk)
        more = message.get("more_body", False)
    return b"".join(chunks)


async def respond(send: Send, answer: AuthResponse) -> None:
    """Send a response."""
    headers = [(name.encode(), value.encode()) for name, value in answer.all_headers.items()]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})


def _header(scope: Scope, name: bytes) -> str:
    values: list[bytes] = [value for key, value in scope["headers"] if key == name]
    return values[0].decode("latin-1") if values else ""
