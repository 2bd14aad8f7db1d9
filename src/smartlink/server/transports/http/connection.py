"""One HTTP connection: requests in, answers out in order, and the upgrade to WebSocket.

A malformed request gets one answer, then the connection ends: nothing after it is read. Requests that the parser
accepts, but that two servers could read differently, are refused here: RFC 9112, sections 3.2, 6.1 and 7.1.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NoReturn, Protocol

import httptools

from smartlink.proxies import TrustedProxies
from smartlink.server.net.capacity import IdleConnection
from smartlink.server.net.link import Link
from smartlink.server.net.requests import HttpError, HttpRequest, HttpResponse, ResponseStream, encode
from smartlink.server.runtime.eager import EagerTasks
from smartlink.server.runtime.pace import Pace
from smartlink.server.runtime.sweeper import Sweeper
from smartlink.server.transports.http.head import Begun, fault_of_head, origin_form, without_offer
from smartlink.server.transports.http.router import Router
from smartlink.server.transports.http.stream import HttpStream

__all__ = ["HttpConnection", "HttpSettings"]

MAX_HEAD_BYTES = 16_384
MAX_HEADERS = 100
MAX_PIPELINED = 64
HEAD_TIMEOUT_S = 10.0
BODY_TIMEOUT_S = 30.0
IDLE_TIMEOUT_S = 75.0
LINGER_S = 1.0
REQUESTS_AT_ONCE = 8
"""Requests of one connection that are answered before other connections get their turn."""
STALLED_S = 10.0
"""Longest time in which a peer reads nothing of its answers."""

_GIVEN_ONCE = frozenset(
    {"content-length", "expect", "host", "idempotency-key", "origin", "sec-websocket-key", "sec-websocket-version"}
    | {"transfer-encoding"}
)
_SIGNED = ("/apps/", "/users/")
"""Paths where a request answered with 200 was signed."""

Upgrade = Callable[[Link, HttpRequest], None]


class RequestState(enum.Enum):
    """How much of the next request has been read: IDLE → HEAD → BODY → IDLE."""

    IDLE = enum.auto()
    """Nothing of it."""
    HEAD = enum.auto()
    BODY = enum.auto()
    """Its head is complete, its body is not."""


class AnswerState(enum.Enum):
    """What becomes of complete requests: READY ⇄ ANSWERING, READY ⇄ PACED, and from anywhere OVER."""

    READY = enum.auto()
    """The next request is answered at once."""
    ANSWERING = enum.auto()
    """One answer is under way; the next request waits for it."""
    PACED = enum.auto()
    """More was requested than is answered in one turn of the loop: the next request waits for another turn."""
    OVER = enum.auto()
    """No request is answered any more: the link has ended, ends with what was written, or was upgraded."""


class FallbackHandler(Protocol):
    """Answers the requests of clients that cannot open a WebSocket."""

    def takes(self, path: str) -> bool: ...

    def answer(self, request: HttpRequest, stream: ResponseStream) -> Coroutine[Any, Any, HttpResponse | None]:
        """Return a whole answer, or None when it is sent through `stream`."""

    def refusal(self, head: HttpRequest) -> Coroutine[Any, Any, HttpError | None]:
        """Return why a request is refused whatever its body is; None when that depends on the body."""


@dataclass(frozen=True, slots=True)
class HttpSettings:
    """Shared by all HTTP connections of a server."""

    router: Router
    tasks: EagerTasks
    sweeper: Sweeper
    upgrade: Upgrade
    """Takes the link over, or raises HttpError."""
    fallback: FallbackHandler
    path_prefix: str
    max_body_bytes: int
    proxies: TrustedProxies
    is_ready: Callable[[], bool]
    """While false, connections end with their next answer."""
    open: set[HttpConnection] = field(default_factory=set)
    pace: Pace = field(default_factory=Pace)
    evictable: set[IdleConnection] = field(default_factory=set)
    """Open connections that have made no signed request."""


class HttpConnection:
    """The handler of a link from its start until it ends or is upgraded.

    `RequestState` and `AnswerState` are the states of its two directions.
    """

    def __init__(self, link: Link, shared: HttpSettings) -> None:
        self._link = link
        self._shared = shared
        self._parser: Any = httptools.HttpRequestParser(self)
        self._begun = Begun()
        self._request_state = RequestState.IDLE
        self._answer_state = AnswerState.READY
        self._complete: deque[tuple[HttpRequest, bool]] = deque()
        """Requests to be answered, each with whether the connection may go on after its answer."""
        self._fault: HttpError | None = None
        """Why nothing more is read; sent after the answers to the complete requests."""
        self._head_bytes = 0
        self._has_requested = False
        """At least one request was complete."""
        self._is_in_loop = False
        """Guards `_answer_next` against answers that are complete at once."""
        self._is_http_1_0 = False
        """The last head was of HTTP/1.0, as some proxies speak it: no chunked answers."""
        self._stream: HttpStream | None = None
        self._behind_since = 0.0
        """Since when the peer does not read its answers; 0 while it does."""
        self._rest = b""
        """Bytes after a handshake: the first ones of the WebSocket."""
        self._peer: str | None = None
        self._deadline = shared.sweeper.now() + HEAD_TIMEOUT_S
        self._idle_since = shared.sweeper.now()
        shared.sweeper.add(self)
        shared.open.add(self)
        shared.evictable.add(self)

    # What the link sees

    def on_bytes(self, data: bytes) -> None:
        if self._answer_state is AnswerState.OVER:
            return
        if self._request_state is not RequestState.BODY:
            self._head_bytes += len(data)
        else:
            self._begun.raw_size += len(data)
        while data and self._fault is None:
            data = self._feed(data)
        if self._begun.has_head and not self._begun.is_checked:
            self._check_head()
        if self._request_state is not RequestState.BODY and self._head_bytes > MAX_HEAD_BYTES:
            self._fault = self._fault or HttpError(431, f"Headers larger than {MAX_HEAD_BYTES} bytes")
        if self._begun.raw_size > 2 * self._shared.max_body_bytes + MAX_HEAD_BYTES:
            self._fault = self._fault or HttpError(413, "More around the chunks of the body than in them")
        if self._stream is not None and (self._fault is not None or len(self._complete) > 1):
            # The answer may never end: nothing after it can be answered.
            self._link.abort()
        else:
            self._answer_next()

    def _feed(self, data: bytes) -> bytes:
        """Parse `data`. Returns what is to be parsed again."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            rest = data[upgrade.args[0] :]
            if self._is_socket(self._complete[-1][0]):
                self._rest = rest
                return b""
            # Other upgrades may be ignored: RFC 9110, section 7.8. Java's client offers HTTP/2 this way. But the parser
            # stops after the head, whatever body follows: let it read the request again, without the offer.
            self._parser = httptools.HttpRequestParser(self)
            return without_offer(self._complete.pop()[0]) + rest
        except httptools.HttpParserError as error:
            # A fault that our own callback raised is more specific than the parser's.
            self._fault = self._fault or HttpError(400, f"Malformed request: {str(error)[:100]}")
        return b""

    def on_closed(self, descriptor: int) -> None:
        self._answer_state = AnswerState.OVER
        self._forget()
        if self._stream is not None:
            self._stream.lose()

    def on_backlog(self, descriptor: int) -> None:
        if self._stream is not None and self._stream.listener is not None:
            self._stream.listener.on_backlog()
            return
        # Do not read from a peer that does not read its answers.
        self._behind_since = self._shared.sweeper.now()
        self._link.pause()

    def on_drained(self) -> None:
        if self._stream is not None and self._stream.listener is not None:
            self._stream.listener.on_drained()
            return
        self._behind_since = 0.0
        self._answer_next()

    def sweep(self, now: float) -> None:
        """Called each second: end the connection when something takes too long."""
        if self._behind_since and now - self._behind_since > STALLED_S:
            self._link.abort()
        elif now < self._deadline or self._answer_state is AnswerState.ANSWERING:
            return
        elif self._answer_state is AnswerState.OVER and self._link.buffered:
            self._behind_since = self._behind_since or now
        elif self._answer_state is AnswerState.OVER or self._request_state is RequestState.IDLE:
            self._link.abort()
        else:
            self._refuse(HttpError(408, "The request did not arrive in time"))

    @property
    def idle_since(self) -> float | None:
        """When the last answer was complete; None while one is under way."""
        return None if self._answer_state is AnswerState.ANSWERING else self._idle_since

    def evict(self) -> None:
        """End at once."""
        self._link.abort()

    def retire(self) -> None:
        """End now when nothing is under way, otherwise with the answer.

        A peer that has requested nothing yet is about to: its request is answered.
        """
        is_idle = (
            self._request_state is RequestState.IDLE and self._answer_state is AnswerState.READY and not self._complete
        )
        if self._has_requested and is_idle:
            self._finish()

    # What the parser sees

    def on_message_begin(self) -> None:
        self._request_state = RequestState.HEAD
        self._deadline = self._shared.sweeper.now() + HEAD_TIMEOUT_S

    def on_url(self, url: bytes) -> None:
        self._begun.url += url
        self._begun.head_bytes += len(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        begun = self._begun
        begun.head_bytes += len(name) + len(value)
        if begun.head_bytes > MAX_HEAD_BYTES:
            self._fail(HttpError(431, f"Headers larger than {MAX_HEAD_BYTES} bytes"))
        if begun.has_head:
            return  # a trailer: it must not change what the head said
        key = name.decode("latin-1").lower()
        headers = begun.headers
        text = value.decode("latin-1").strip(" \t")
        if key in headers:
            if key in _GIVEN_ONCE:
                self._fail(HttpError(400, f"The header {key} is given twice"))
            text = f"{headers[key]}, {text}"
        if len(headers) >= MAX_HEADERS:
            self._fail(HttpError(431, f"More than {MAX_HEADERS} headers"))
        headers[key] = text

    def on_headers_complete(self) -> None:
        self._request_state = RequestState.BODY
        self._begun.has_head = True
        self._deadline = self._shared.sweeper.now() + BODY_TIMEOUT_S
        headers = self._begun.headers
        version = self._parser.get_http_version()
        self._is_http_1_0 = version == "1.0"
        fault = fault_of_head(headers, version, self._parser.get_method().decode("latin-1"))
        if fault is not None:
            self._fail(fault)
        size = int(headers.get("content-length", "0"))
        if size > self._shared.max_body_bytes:
            self._fail(self._too_large(size))
        # While earlier answers are under way, it would arrive instead of them; the peer sends its body anyway.
        has_earlier = self._answer_state is AnswerState.ANSWERING or self._complete
        if "expect" in headers and not (has_earlier or self._is_http_1_0):
            self._check_head()
            if self._fault is not None:
                raise self._fault
            self._link.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        begun = self._begun
        begun.size += len(body)
        if begun.size > self._shared.max_body_bytes:
            self._fail(self._too_large(begun.size))
        begun.body.append(body)

    def on_message_complete(self) -> None:
        begun, self._begun = self._begun, Begun()
        self._request_state = RequestState.IDLE
        self._has_requested = True
        self._head_bytes = 0
        self._deadline = self._shared.sweeper.now() + IDLE_TIMEOUT_S
        request = self._request(begun, b"".join(begun.body))
        # Close after answers to HTTP/1.0, even if keep-alive was requested: its clients may wait for the close.
        self._complete.append((request, self._parser.should_keep_alive() and not self._is_http_1_0))
        if len(self._complete) > MAX_PIPELINED:
            self._fail(HttpError(429, f"More than {MAX_PIPELINED} requests at once on one connection"))

    def _request(self, begun: Begun, body: bytes = b"") -> HttpRequest:
        try:
            path, _, query = origin_form(begun).partition("?")
        except HttpError as error:
            self._fail(error)
        prefix = self._shared.path_prefix
        if prefix and path.startswith(f"{prefix}/"):
            path = path[len(prefix) :]
        method = self._parser.get_method().decode("latin-1")
        return HttpRequest(method, path, query, begun.headers, body, self._client(begun.headers))

    def _check_head(self) -> None:
        """Refuse now what will be refused whatever its body is."""
        begun = self._begun
        begun.is_checked = True
        try:
            head = self._request(begun)
        except HttpError:
            return  # it is `_fault` now
        if self._shared.fallback.takes(head.path):
            self._shared.tasks.run(self._shared.fallback.refusal(head), partial(self._on_checked, begun))
        else:
            self._fault = self._fault or self._shared.router.refusal(head)
            if self._fault is None:
                self._shared.evictable.discard(self)

    def _on_checked(self, begun: Begun, refusal: HttpError | None) -> None:
        if refusal is not None and begun is self._begun and self._answer_state is not AnswerState.OVER:
            self._fault = self._fault or refusal
            self._answer_next()

    def _client(self, headers: dict[str, str]) -> str:
        if self._peer is None:
            self._peer = self._link.peer
        return self._shared.proxies.client(self._peer, headers.get("x-forwarded-for"))

    # Answers

    def _answer_next(self) -> None:
        if self._is_in_loop:
            return
        self._is_in_loop = True
        left = REQUESTS_AT_ONCE
        while self._complete and self._answer_state is AnswerState.READY and not self._behind_since:
            if not left:
                self._wait_for_turn()
                break
            left -= 1
            request, keeps_alive = self._complete.popleft()
            if self._is_socket(request):
                self._upgrade(request)
                return
            self._answer_state = AnswerState.ANSWERING
            is_answered = self._shared.tasks.run(
                self._answer(request, keeps_alive),
                lambda response, request=request, keeps=keeps_alive: self._on_answer(  # type: ignore[misc]
                    response, request, keeps
                ),
                self._on_failed,
            )
            if not is_answered:
                self._link.pause()
        self._is_in_loop = False
        if self._answer_state is not AnswerState.READY or self._behind_since:
            return
        if self._fault is not None:
            self._refuse(self._fault)
        else:
            self._link.resume()

    def _wait_for_turn(self) -> None:
        self._answer_state = AnswerState.PACED
        self._link.pause()
        self._shared.pace.request_turn(self)

    def take_turn(self) -> None:
        """Answer the requests that waited for this turn."""
        if self._answer_state is AnswerState.PACED:
            self._answer_state = AnswerState.READY
            self._answer_next()

    def _is_socket(self, request: HttpRequest) -> bool:
        """Whether the request opens a WebSocket, at any path: refusals of WebSockets are sent over them."""
        headers = request.headers
        is_offer = request.method == "GET" and "websocket" in headers.get("upgrade", "").lower()
        if is_offer and "upgrade" in headers.get("connection", "").lower():
            return True
        return request.path.startswith("/app/") and not self._shared.fallback.takes(request.path)

    def _answer(self, request: HttpRequest, keeps_alive: bool) -> Coroutine[Any, Any, HttpResponse | None]:
        if self._shared.fallback.takes(request.path):
            return self._fall_back(request, keeps_alive)
        return self._shared.router.answer(request)

    async def _fall_back(self, request: HttpRequest, keeps_alive: bool) -> HttpResponse | None:
        stream = HttpStream(self._link, self._on_stream_end, is_chunked=not self._is_http_1_0, keeps_alive=keeps_alive)
        self._stream = stream
        answer = await self._shared.fallback.answer(request, stream)
        if answer is not None:
            self._stream = None
        return answer

    def _on_stream_end(self) -> None:
        stream, self._stream = self._stream, None
        self._idle_since = self._shared.sweeper.now()
        if self._answer_state is AnswerState.OVER:
            return
        self._answer_state = AnswerState.READY
        if stream is None:
            return
        if not (stream.keeps_alive and self._shared.is_ready()):
            self._finish()
            return
        self._deadline = self._shared.sweeper.now() + IDLE_TIMEOUT_S
        if self._link.buffered:
            self.on_backlog(-1)
        self._answer_next()

    def _on_answer(self, response: HttpResponse | None, request: HttpRequest, keeps_alive: bool) -> None:
        if response is None:
            if self._stream is not None:
                # Read on, to notice that the client leaves.
                self._link.resume()
            return
        if self._answer_state is AnswerState.OVER:
            return
        self._answer_state = AnswerState.READY
        self._idle_since = self._shared.sweeper.now()
        if response.status == 200 and request.method != "OPTIONS" and request.path.startswith(_SIGNED):
            self._shared.evictable.discard(self)
        keeps_alive = keeps_alive and self._shared.is_ready()
        self._link.write(encode(response, closes=not keeps_alive, with_body=request.method != "HEAD"))
        if not keeps_alive:
            self._finish()
        else:
            self._answer_next()

    def _on_failed(self) -> None:
        if self._answer_state is not AnswerState.OVER:
            self._answer_state = AnswerState.READY
            self._refuse(HttpError(500, "Internal error"))

    def _upgrade(self, request: HttpRequest) -> None:
        rest, self._rest = self._rest, b""
        try:
            if int(request.headers.get("content-length", "0")) or "transfer-encoding" in request.headers:
                raise HttpError(400, "A WebSocket handshake must not have a body")
            if self._complete or self._fault is not None:
                raise HttpError(400, "Only WebSocket frames may follow a WebSocket handshake")
            self._shared.upgrade(self._link, request)
        except HttpError as error:
            self._refuse(error)
            return
        self._answer_state = AnswerState.OVER
        self._parser = None
        self._forget()
        if rest:
            self._link.handler.on_bytes(rest)

    def _forget(self) -> None:
        self._shared.sweeper.discard(self)
        self._shared.open.discard(self)
        self._shared.evictable.discard(self)

    def _fail(self, error: HttpError) -> NoReturn:
        self._fault = self._fault or error
        raise error

    def _too_large(self, size: int) -> HttpError:
        return HttpError(413, f"The body is {size} bytes or more, larger than {self._shared.max_body_bytes}")

    def _refuse(self, error: HttpError) -> None:
        self._link.write(encode(error.response(), closes=True))
        self._finish()

    def _finish(self) -> None:
        self._answer_state = AnswerState.OVER
        self._complete.clear()
        self._deadline = self._shared.sweeper.now() + LINGER_S
        self._link.resume()
        self._link.finish()
