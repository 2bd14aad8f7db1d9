"""One HTTP connection: requests in, answers out in order, and the upgrade to WebSocket.

A malformed request gets one answer and then the connection ends: nothing behind it is read.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httptools

from smartlink.server.eager import EagerTasks
from smartlink.server.http.router import Router
from smartlink.server.link import Link
from smartlink.server.requests import HttpError, Request, Response, encode
from smartlink.server.watch import Watch

__all__ = ["HttpConnection", "HttpSettings"]

MAX_HEAD_BYTES = 16_384
MAX_HEADERS = 100
MAX_PIPELINED = 64
HEAD_TIMEOUT_S = 10.0
BODY_TIMEOUT_S = 30.0
IDLE_TIMEOUT_S = 75.0
LINGER_S = 1.0

Upgrade = Callable[[Link, Request], None]


@dataclass(frozen=True, slots=True)
class HttpSettings:
    """What all HTTP connections of a server share."""

    router: Router
    tasks: EagerTasks
    watch: Watch
    upgrade: Upgrade
    """Takes the link over, or raises HttpError."""
    path_prefix: str
    max_body_bytes: int


class _Begun:
    """A request of which not all has come."""

    __slots__ = ("body", "head_bytes", "headers", "size", "url")

    def __init__(self) -> None:
        self.url = b""
        self.headers: dict[str, str] = {}
        self.body: list[bytes] = []
        self.size = 0
        self.head_bytes = 0


class HttpConnection:
    """The handler of a link from its start until it ends or is upgraded."""

    def __init__(self, link: Link, shared: HttpSettings) -> None:
        self._link = link
        self._shared = shared
        self._parser: Any = httptools.HttpRequestParser(self)
        self._begun = _Begun()
        self._ready: deque[tuple[Request, bool]] = deque()
        self._fault: HttpError | None = None
        self._head_bytes = 0
        self._is_in_head = True
        self._is_upgrade = False
        self._is_answering = False
        self._is_over = False
        self._deadline = shared.watch.now() + HEAD_TIMEOUT_S
        shared.watch.linger(self)

    # What the link sees

    def on_bytes(self, data: bytes) -> None:
        if self._is_over:
            return
        now = self._shared.watch.now()
        if self._is_in_head:
            if not self._head_bytes:
                self._deadline = now + HEAD_TIMEOUT_S
            self._head_bytes += len(data)
        rest = b""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._is_upgrade = True
            rest = data[upgrade.args[0] :]
        except httptools.HttpParserError as error:
            # A fault found in a callback of ours comes wrapped; it says more than the parser does.
            self._fault = self._fault or HttpError(400, f"Malformed request: {str(error)[:100]}")
        if self._is_in_head and self._head_bytes > MAX_HEAD_BYTES:
            self._fault = self._fault or HttpError(431, f"Headers larger than {MAX_HEAD_BYTES} bytes")
        self._answer_next(rest)

    def on_closed(self, descriptor: int) -> None:
        self._is_over = True
        self._shared.watch.forget(self)

    def on_behind(self, descriptor: int) -> None:
        self._link.pause()

    def on_caught_up(self) -> None:
        self._link.resume()

    def look_after(self, now: float) -> None:
        """Called each second: ends what takes too long."""
        if now < self._deadline or self._is_answering:
            return
        if self._is_over or (self._is_in_head and not self._head_bytes):
            self._link.abort()
        else:
            self._refuse(HttpError(408, "The request did not arrive in time"))

    # What the parser sees

    def on_url(self, url: bytes) -> None:
        self._begun.url += url
        self._begun.head_bytes += len(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._begun.head_bytes += len(name) + len(value)
        if self._begun.head_bytes > MAX_HEAD_BYTES:
            self._fail(HttpError(431, f"Headers larger than {MAX_HEAD_BYTES} bytes"))
        key = name.decode("latin-1").lower()
        headers = self._begun.headers
        if key in headers and key in ("host", "content-length", "sec-websocket-key", "sec-websocket-version"):
            self._fail(HttpError(400, f"The header {key} is given twice"))
        if len(headers) >= MAX_HEADERS:
            self._fail(HttpError(431, f"More than {MAX_HEADERS} headers"))
        headers[key] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        self._is_in_head = False
        self._deadline = self._shared.watch.now() + BODY_TIMEOUT_S
        headers = self._begun.headers
        if self._parser.get_http_version() not in ("1.1", "1.0"):
            self._fail(HttpError(505, "HTTP/1.1 is spoken here"))
        if self._parser.get_http_version() == "1.1" and "host" not in headers:
            self._fail(HttpError(400, "A Host header is missing"))
        size = headers.get("content-length", "")
        if size.isdigit() and int(size) > self._shared.max_body_bytes:
            self._fail(self._too_large(int(size)))
        if headers.get("expect", "").lower() == "100-continue":
            self._link.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        begun = self._begun
        begun.size += len(body)
        if begun.size > self._shared.max_body_bytes:
            self._fail(self._too_large(begun.size))
        begun.body.append(body)

    def on_message_complete(self) -> None:
        begun, self._begun = self._begun, _Begun()
        self._is_in_head = True
        self._head_bytes = 0
        self._deadline = self._shared.watch.now() + IDLE_TIMEOUT_S
        path, _, query = begun.url.decode("latin-1").partition("?")
        prefix = self._shared.path_prefix
        if prefix and path.startswith(f"{prefix}/"):
            path = path[len(prefix) :]
        request = Request(self._parser.get_method().decode("latin-1"), path, query, begun.headers, b"".join(begun.body))
        self._ready.append((request, self._parser.should_keep_alive()))
        if len(self._ready) > MAX_PIPELINED:
            self._fail(HttpError(429, f"More than {MAX_PIPELINED} requests at once on one connection"))

    # Answers

    def _answer_next(self, rest: bytes = b"") -> None:
        while self._ready and not self._is_answering and not self._is_over:
            request, keeps_alive = self._ready.popleft()
            if request.path.startswith("/app/") or (self._is_upgrade and not self._ready and _is_handshake(request)):
                self._upgrade(request, rest)
                return
            # Any other upgrade is not taken up: the answer is in plain HTTP, and the last one.
            keeps_alive = keeps_alive and not self._is_upgrade
            self._is_answering = True
            self._link.pause()
            self._shared.tasks.run(
                self._shared.router.answer(request),
                lambda response, request=request, keeps=keeps_alive: self._on_answer(  # type: ignore[misc]
                    response, request, keeps
                ),
                self._on_failed,
            )
        if self._is_answering or self._is_over:
            return
        if self._fault is not None:
            self._refuse(self._fault)
        else:
            self._link.resume()

    def _on_answer(self, response: Response, request: Request, keeps_alive: bool) -> None:
        waited = self._is_answering
        self._is_answering = False
        if self._is_over:
            return
        self._link.write(encode(response, closes=not keeps_alive, with_body=request.method != "HEAD"))
        if not keeps_alive:
            self._finish()
        elif waited and not self._ready:
            self._answer_next()

    def _on_failed(self) -> None:
        self._is_answering = False
        self._refuse(HttpError(500, "Internal error"))

    def _upgrade(self, request: Request, rest: bytes) -> None:
        if self._fault is not None and not self._is_upgrade:
            self._refuse(self._fault)
            return
        try:
            self._shared.upgrade(self._link, request)
        except HttpError as error:
            self._refuse(error)
            return
        self._is_over = True
        self._parser = None
        self._shared.watch.forget(self)
        if rest:
            self._link.handler.on_bytes(rest)

    def _fail(self, error: HttpError) -> None:
        self._fault = self._fault or error
        raise error

    def _too_large(self, size: int) -> HttpError:
        return HttpError(413, f"The body is {size} bytes or more, larger than {self._shared.max_body_bytes}")

    def _refuse(self, error: HttpError) -> None:
        self._link.write(encode(error.response(), closes=True))
        self._finish()

    def _finish(self) -> None:
        self._is_over = True
        self._ready.clear()
        self._deadline = self._shared.watch.now() + LINGER_S
        self._link.resume()
        self._link.finish()


def _is_handshake(request: Request) -> bool:
    """Whether the request is the beginning of a WebSocket."""
    return "websocket" in request.headers.get("upgrade", "").lower()
