"""The ASGI app behind Echo: `…/auth` lets a socket onto channels, `…/user-auth` signs a user in.

Mount it at `/broadcasting`. `ChannelAuthorizer` says what is answered; this carries it.
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
    """The client went away while its body was read; there is nobody to answer."""


class BroadcastingAuth(Generic[User]):
    """Answers as `ChannelAuthorizer` does, for users that `authenticate` knows.

    `authenticate` gets the ASGI scope and gives the user, or None for 401; it may raise `RequestRefused`. A mapping of
    names to such functions makes several guards; the first is for rules that name none.
    """

    def __init__(
        self, authorizer: ChannelAuthorizer[User], authenticate: Authenticate[User] | Mapping[str, Authenticate[User]]
    ) -> None:
        self._signatory = authorizer
        self._guards = authenticate if isinstance(authenticate, Mapping) else {"default": authenticate}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not await is_http(scope, send):
            return
        question = AuthRequest(
            method=scope["method"],
            path=scope["path"],
            read=partial(read_body, scope, receive),
            content_type=_header(scope, b"content-type"),
            query=scope.get("query_string", b"").decode("latin-1"),
        )
        guards = {name: partial(guard, scope) for name, guard in self._guards.items()}
        try:
            answer = await self._signatory.answer(question, guards)
        except ClientGone:
            return
        await respond(send, answer)


async def is_http(scope: Scope, send: Send) -> bool:
    """Whether it is an HTTP request. A WebSocket, which strangers may try, is refused; raises RuntimeError for what a
    server says of itself (`lifespan`), as ASGI asks for."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1000})
    elif scope["type"] != "http":
        raise RuntimeError(f"this app answers HTTP, not {scope['type']}")
    return bool(scope["type"] == "http")


async def read_body(scope: Scope, receive: Receive) -> bytes:
    """A request's body. Raises RequestRefused above 64 KiB, ClientGone when nobody is there any more."""
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
    """Send an answer."""
    headers = [(name.encode(), value.encode()) for name, value in answer.all_headers.items()]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})


def _header(scope: Scope, name: bytes) -> str:
    values: list[bytes] = [value for key, value in scope["headers"] if key == name]
    return values[0].decode("latin-1") if values else ""
