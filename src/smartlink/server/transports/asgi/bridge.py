"""From ASGI scopes to the server's links and back: a scope becomes one request in bytes, its answer ASGI messages."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine, MutableMapping
from functools import lru_cache
from typing import Any
from urllib.parse import quote

from smartlink.server.net.framing import BINARY, CLOSE, TEXT, is_valid_close_code, server_frames
from smartlink.server.net.requests import HttpError
from smartlink.server.transports.asgi.link import ScopeLink

__all__ = ["Message", "Receive", "Scope", "Send", "bridge_http", "bridge_websocket", "peer_of"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

NO_STATUS, LOST = 1005, 1006
LINGER_S = 2.0
"""How long an early answer waits for the rest of its request: ASGI servers cut off those who still send."""
_OWN = frozenset({b"connection", b"keep-alive", b"upgrade", b"transfer-encoding", b"content-length", b"expect", b"te"})
"""Headers of the connection to the ASGI server, not of the request."""
_HANDSHAKE = (
    b"upgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-version: 13\r\n"
    b"sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
)


def peer_of(scope: Scope) -> str:
    """The peer's address as the ASGI server sees it; `unix` without one."""
    client = scope.get("client")
    return str(client[0]) if client and client[0] else "unix"


async def bridge_websocket(link: ScopeLink, scope: Scope, receive: Receive, send: Send) -> None:
    """Serve a WebSocket until either side ends it. The link's handler is set. Raises HttpError."""
    head = _head(scope, "GET", "1.1", _HANDSHAKE)
    if (await receive())["type"] == "websocket.connect":
        link.handler.on_bytes(head)
        await _joined(link, _read_frames(link, receive), _write_frames(link, send))


async def bridge_http(link: ScopeLink, scope: Scope, receive: Receive, send: Send, max_body_bytes: int) -> None:
    """Serve one request. Bodies above `max_body_bytes` are refused by the handler, unread. Raises HttpError."""
    is_read = asyncio.Event()
    reading = _read_request(link, scope, receive, max_body_bytes, is_read)
    await _joined(link, reading, _write_response(link, send, is_read))


async def _joined(link: ScopeLink, reading: Coroutine[Any, Any, None], writing: Coroutine[Any, Any, None]) -> None:
    """Run both until one ends or the link is aborted; then abort the link. Raises what they raise."""
    tasks = [asyncio.ensure_future(each) for each in (writing, reading, link.aborted.wait())]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        link.abort()
    for task in done:
        with contextlib.suppress(OSError):  # how an ASGI server says that the peer is gone
            task.result()


def _head(scope: Scope, method: str, version: str, own: bytes) -> bytes:
    """The head of the request, without the path that the application is mounted at. Raises HttpError."""
    path = (scope.get("raw_path") or quote(scope["path"]).encode()).partition(b"?")[0]
    root = quote(scope.get("root_path", "")).encode()
    if root and path.startswith(root + b"/"):
        path = path[len(root) :]
    query = scope.get("query_string", b"")
    lines = [b"%b %b%b HTTP/%b\r\n" % (method.encode(), path, b"?" + query if query else b"", version.encode())]
    headers = [(name.lower(), value) for name, value in scope["headers"]]
    lines += [b"%b: %b\r\n" % (name, value) for name, value in headers if name not in _OWN and _is_kept(name)]
    if not any(name == b"host" for name, _ in headers):
        lines.append(b"host: localhost\r\n")
    head = b"".join(lines)
    if not head.count(b"\r") == head.count(b"\n") == len(lines):
        raise HttpError(400, "A line break within a header")
    return head + own + b"\r\n"


def _is_kept(name: bytes) -> bool:
    return not name.startswith((b"sec-websocket-", b":"))


# WebSockets


async def _read_frames(link: ScopeLink, receive: Receive) -> None:
    while True:
        await link.readable()
        message = await receive()
        if message["type"] == "websocket.disconnect":
            code = message.get("code") or NO_STATUS
            if code != LOST:  # a peer that says goodbye has left; one that is lost may return
                link.handler.on_bytes(_masked(CLOSE, code.to_bytes(2, "big") if is_valid_close_code(code) else b""))
            return
        text = message.get("text")
        opcode, payload = (TEXT, text.encode()) if text is not None else (BINARY, message.get("bytes") or b"")
        link.handler.on_bytes(_masked(opcode, payload))


async def _write_frames(link: ScopeLink, send: Send) -> None:
    is_open = False
    async for data in link.output():
        frames = data
        if not is_open:
            answer, _, frames = data.partition(b"\r\n\r\n")
            if not answer.startswith(b"HTTP/1.1 101"):
                break  # refused without a WebSocket
            await send({"type": "websocket.accept"})
            is_open = True
        for message in _messages(frames):
            await send(message)
            if message["type"] == "websocket.close":
                return
    await send({"type": "websocket.close", "code": 1000 if is_open else 1008})


@lru_cache(maxsize=4)
def _messages(frames: bytes) -> tuple[Message, ...]:
    """The messages of whole frames; remembered, since an event is one frame for all its subscribers.

    WebSocket pings are the ASGI server's; the protocol's own are texts.
    """
    found: list[Message] = []
    for opcode, payload in server_frames(frames):
        if opcode == TEXT:
            found.append({"type": "websocket.send", "text": payload.decode()})
        elif opcode == CLOSE:
            code = int.from_bytes(payload[:2], "big") if payload else 1000
            found.append({"type": "websocket.close", "code": code, "reason": payload[2:].decode()})
    return tuple(found)


def _masked(opcode: int, payload: bytes) -> bytes:
    """A client's frame, masked with zeros: the payload as it is."""
    size = len(payload)
    if size < 126:
        length = bytes((0x80 | size,))
    elif size < 65_536:
        length = b"\xfe" + size.to_bytes(2, "big")
    else:
        length = b"\xff" + size.to_bytes(8, "big")
    return bytes((0x80 | opcode,)) + length + bytes(4) + payload


# HTTP


async def _read_request(
    link: ScopeLink, scope: Scope, receive: Receive, max_body_bytes: int, is_read: asyncio.Event
) -> None:
    """Pass on the request: as HTTP/1.0, whose answers end with the link. Sets `is_read` once its body has come."""
    declared = next((value for name, value in scope["headers"] if name.lower() == b"content-length"), None)
    message = await receive()
    if declared is None:
        body, message = await _collected(message, receive, max_body_bytes)
        declared = str(len(body)).encode()
        message = {**message, "body": body}
    link.handler.on_bytes(_head(scope, scope["method"], "1.0", b"content-length: %b\r\n" % declared))
    while message["type"] == "http.request":
        if message.get("body"):
            link.handler.on_bytes(message["body"])
        if not message.get("more_body", False):
            is_read.set()
        await link.readable()
        message = await receive()
    is_read.set()


async def _collected(message: Message, receive: Receive, max_body_bytes: int) -> tuple[bytes, Message]:
    """The whole body of a request without a length, at most a byte too much of it; and its last message."""
    body = bytearray()
    while message["type"] == "http.request":
        body += message.get("body", b"")[: max_body_bytes + 1 - len(body)]
        if not message.get("more_body", False) or len(body) > max_body_bytes:
            break
        message = await receive()
    return bytes(body), message


async def _write_response(link: ScopeLink, send: Send, is_read: asyncio.Event) -> None:
    is_begun = False
    async for data in link.output():
        body = data
        if not is_begun:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(is_read.wait(), LINGER_S)
            head, _, body = data.partition(b"\r\n\r\n")
            status, *lines = head.split(b"\r\n")
            pairs = (line.split(b": ", 1) for line in lines)
            headers = [(name.lower(), value) for name, value in pairs if name.lower() not in _OWN - {b"content-length"}]
            await send({"type": "http.response.start", "status": int(status.split(b" ", 2)[1]), "headers": headers})
            is_begun = True
        if body:
            await send({"type": "http.response.body", "body": body, "more_body": True})
    if is_begun:
        await send({"type": "http.response.body", "body": b"", "more_body": False})
