"""One HTTP connection: requests in, answers out in order, and the upgrade to WebSocket.

A malformed request gets one answer, then the connection ends: nothing after it is read.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

from smartlink.proxies import TrustedProxies
from smartlink.server.net.capacity import IdleConnection
from smartlink.server.net.link import Link
from smartlink.server.net.requests import HttpError, HttpRequest, HttpResponse, ResponseStream, encode
from smartlink.server.runtime.eager import EagerTasks
from smartlink.server.runtime.pace import Pace
from smartlink.server.runtime.sweeper import Sweeper
from smartlink.server.transports.http.head import Head
from smartlink.server.transports.http.reader import RequestReader
from smartlink.server.transports.http.router import Router
from smartlink.server.transports.http.stream import HttpStream

__all__ = ["HttpConnection", "HttpSettings"]

MAX_PIPELINED = 64
HEAD_TIMEOUT_S = 10.0
BODY_TIMEOUT_S = 30.0
IDLE_TIMEOUT_S = 75.0
RESTED_S = 0.25
"""How long after an answer the next request may be on its way to a server that stops."""
LINGER_S = 1.0
REQUESTS_AT_ONCE = 8
"""Requests of one connection that are answered before other connections get their turn."""
STALLED_S = 10.0
"""Longest time in which a peer reads nothing of its answers."""

_SIGNED = ("/apps/", "/users/")
"""Paths where a request answered with 200 was signed."""

Upgrade = Callable[[Link, HttpRequest], None]


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


_Entry = tuple[HttpRequest, bool, bool]
"""A complete request, whether the connection may go on after its answer, and whether it opens a WebSocket."""


class HttpConnection:
    """The handler of a link from its start until it ends or is upgraded.

    `AnswerState` is the state of its answers; how much of the next request has been read is the reader's.
    """

    __slots__ = (
        "_answer_state",
        "_begun_at",
        "_behind_since",
        "_complete",
        "_current",
        "_expecting",
        "_fault",
        "_has_requested",
        "_idle_since",
        "_is_in_loop",
        "_is_last",
        "_lingers_until",
        "_link",
        "_peer",
        "_reader",
        "_shared",
        "_stream",
    )

    def __init__(self, link: Link, shared: HttpSettings) -> None:
        self._link = link
        self._shared = shared
        self._reader = RequestReader(shared.max_body_bytes)
        self._answer_state = AnswerState.READY
        self._complete: deque[_Entry] = deque()
        self._current: _Entry | None = None
        """The request whose answer is under way."""
        self._fault: HttpError | None = None
        """Why nothing more is read; sent after the answers to the complete requests."""
        self._expecting: Head | None = None
        """Of the request that waits for `100 Continue` before it sends its body."""
        self._has_requested = False
        """At least one request was complete."""
        self._is_last = False
        """No request follows the last complete one."""
        self._is_in_loop = False
        """Guards `_answer_next` against answers that are complete at once."""
        self._stream: HttpStream | None = None
        self._behind_since = 0.0
        """Since when the peer does not read its answers; 0 while it does."""
        self._peer: str | None = None
        self._idle_since = shared.sweeper.now()
        self._begun_at = self._lingers_until = 0.0
        """Since when the next request, or its body, is awaited, 0 if nothing of it has arrived; when lingering ends."""
        shared.sweeper.add(self)
        shared.open.add(self)
        shared.evictable.add(self)

    # What the link sees

    def on_bytes(self, data: bytes) -> None:
        if self._answer_state is AnswerState.OVER or self._fault is not None:
            return
        reader = self._reader
        reader.feed(data)
        if not self._is_last:  # else these are the first bytes of the WebSocket, if any
            head = reader.head
            is_complete = self._read()
            if not reader.has_begun:
                self._begun_at = 0.0
            elif is_complete or not self._begun_at or reader.head is not head:
                self._begun_at = self._shared.sweeper.now()
                is_open = not (self._has_fault or self._is_last)
                if is_open and reader.head is not None and reader.head is not head:
                    self._check_head(reader.head)
        if self._stream is not None and (self._has_fault or self._is_last or len(self._complete) > 1):
            # The answer may never end: nothing after it can be answered.
            self._link.abort()
        else:
            self._answer_next()

    @property
    def _has_fault(self) -> bool:
        return self._fault is not None

    def _read(self) -> bool:
        """Read the requests that are complete. Returns whether there are any."""
        reader, complete = self._reader, self._complete
        count = len(complete)
        try:
            while not self._is_last:
                read = reader.read()
                if read is not None:
                    head, body = read
                    request = self._request(head, body)
                    is_socket = self._is_socket(request)
                elif (unfinished := reader.head) is not None:
                    # A handshake with a body is refused without it.
                    head, request = unfinished, self._request(unfinished)
                    is_socket = self._is_socket(request)
                    if not is_socket:
                        break
                else:
                    break
                complete.append((request, head.keeps_alive, is_socket))
                self._is_last = is_socket or not head.keeps_alive
        except HttpError as error:
            self._fault = error
        if len(complete) == count:
            return False
        self._has_requested = True
        if len(complete) > MAX_PIPELINED:
            self._fault = HttpError(429, f"More than {MAX_PIPELINED} requests at once on one connection")
        return True

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
        elif self._answer_state is AnswerState.OVER or not self._reader.has_begun:
            self._link.abort()
        else:
            self._refuse(HttpError(408, "The request did not arrive in time"))

    @property
    def _deadline(self) -> float:
        """Until when the next step has time."""
        if self._answer_state is AnswerState.OVER:
            return self._lingers_until
        if self._begun_at:
            return self._begun_at + (HEAD_TIMEOUT_S if self._reader.head is None else BODY_TIMEOUT_S)
        return self._idle_since + (IDLE_TIMEOUT_S if self._has_requested else HEAD_TIMEOUT_S)

    @property
    def idle_since(self) -> float | None:
        """When the last answer was complete; None while one is under way."""
        return None if self._answer_state is AnswerState.ANSWERING else self._idle_since

    def evict(self) -> None:
        """End at once."""
        self._link.abort()

    def retire(self) -> None:
        """End when nothing is under way, otherwise with the answer. Called again until it has ended.

        A peer that has requested nothing yet is about to, and so may be one that was answered just now: its next
        request is answered, and told that it is the last.
        """
        is_idle = self._answer_state is AnswerState.READY and not (self._complete or self._reader.has_begun)
        if self._has_requested and is_idle and self._shared.sweeper.now() - self._idle_since >= RESTED_S:
            self._finish()

    def _request(self, head: Head, body: bytes = b"") -> HttpRequest:
        path, prefix = head.path, self._shared.path_prefix
        if prefix and path.startswith(f"{prefix}/"):
            path = path[len(prefix) :]
        headers = head.headers
        return HttpRequest(head.method, path, head.query, headers, body, self._client(headers), head.is_http_1_0)

    def _check_head(self, head: Head) -> None:
        """Refuse now what will be refused whatever its body is; note whether it asks if its body is wanted."""
        request = self._request(head)
        if self._shared.fallback.takes(request.path):
            self._shared.tasks.run(self._shared.fallback.refusal(request), partial(self._on_checked, head))
        else:
            self._fault = self._fault or self._shared.router.refusal(request)
            if self._fault is None:
                self._shared.evictable.discard(self)
        if "expect" in head.headers and not head.is_http_1_0:
            self._expecting = head

    def _on_checked(self, head: Head, refusal: HttpError | None) -> None:
        if refusal is not None and head is self._reader.head and self._answer_state is not AnswerState.OVER:
            self._fault = self._fault or refusal
            self._answer_next()

    def _client(self, headers: Mapping[str, str]) -> str:
        peer = self._peer
        if peer is None:
            peer = self._peer = self._shared.proxies.client(self._link.peer, None)
        return self._shared.proxies.client(peer, headers["x-forwarded-for"]) if "x-forwarded-for" in headers else peer

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
            self._current = request, _, is_socket = self._complete.popleft()
            if is_socket:
                self._upgrade(request)
                return
            self._answer_state = AnswerState.ANSWERING
            if not self._shared.tasks.run(self._answer(request), self._on_answer, self._on_failed):
                self._link.pause()
        self._is_in_loop = False
        if self._answer_state is not AnswerState.READY or self._behind_since:
            return
        if self._fault is not None:
            self._refuse(self._fault)
            return
        self._link.resume()
        # Not before: it would arrive instead of an earlier answer.
        expecting, self._expecting = self._expecting, None
        if expecting is not None and expecting is self._reader.head:
            self._link.write(b"HTTP/1.1 100 Continue\r\n\r\n")

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
        is_offer = "upgrade" in headers and request.method == "GET" and "websocket" in headers["upgrade"].lower()
        if is_offer and "upgrade" in headers.get("connection", "").lower():
            return True
        return request.path.startswith("/app/") and not self._shared.fallback.takes(request.path)

    def _answer(self, request: HttpRequest) -> Coroutine[Any, Any, HttpResponse | None]:
        if self._shared.fallback.takes(request.path):
            return self._fall_back(request)
        return self._shared.router.answer(request)

    async def _fall_back(self, request: HttpRequest) -> HttpResponse | None:
        assert self._current is not None  # noqa: S101
        _, keeps_alive, _ = self._current
        is_chunked = not request.is_http_1_0
        stream = HttpStream(self._link, self._on_stream_end, is_chunked=is_chunked, keeps_alive=keeps_alive)
        self._stream = stream
        answer = await self._shared.fallback.answer(request, stream)
        if answer is not None:
            self._stream = None
        return answer

    def _on_stream_end(self) -> None:
        stream, self._stream = self._stream, None
        self._note_answered()
        if self._answer_state is AnswerState.OVER:
            return
        self._answer_state = AnswerState.READY
        if stream is None:
            return
        if not (stream.keeps_alive and self._shared.is_ready()):
            self._finish()
            return
        if self._link.buffered:
            self.on_backlog(-1)
        self._answer_next()

    def _on_answer(self, response: HttpResponse | None) -> None:
        if response is None:
            if self._stream is not None:
                # Read on, to notice that the client leaves.
                self._link.resume()
            return
        if self._answer_state is AnswerState.OVER or self._current is None:
            return
        shared, (request, keeps_alive, _) = self._shared, self._current
        self._answer_state = AnswerState.READY
        self._note_answered()
        if response.status == 200 and request.path.startswith(_SIGNED) and request.method != "OPTIONS":
            shared.evictable.discard(self)
        keeps_alive = keeps_alive and shared.is_ready()
        self._link.write(encode(response, closes=not keeps_alive, with_body=request.method != "HEAD"))
        if not keeps_alive:
            self._finish()
        elif not self._is_in_loop:
            self._answer_next()

    def _note_answered(self) -> None:
        now = self._idle_since = self._shared.sweeper.now()
        if self._begun_at:
            self._begun_at = now  # nothing of the next request was read meanwhile

    def _on_failed(self) -> None:
        if self._answer_state is not AnswerState.OVER:
            self._answer_state = AnswerState.READY
            method = None if self._current is None else self._current[0].method
            self._refuse(HttpError(500, "Internal error"), method)

    def _upgrade(self, request: HttpRequest) -> None:
        headers = request.headers
        try:
            if "transfer-encoding" in headers or int(headers.get("content-length", "0")):
                raise HttpError(400, "A WebSocket handshake must not have a body")
            self._shared.upgrade(self._link, request)
        except HttpError as error:
            self._refuse(error, request.method)
            return
        self._answer_state = AnswerState.OVER
        self._forget()
        if rest := self._reader.rest:
            self._link.handler.on_bytes(rest)

    def _forget(self) -> None:
        self._shared.sweeper.discard(self)
        self._shared.open.discard(self)
        self._shared.evictable.discard(self)

    def _refuse(self, error: HttpError, method: str | None = None) -> None:
        """Answer and end. `method` is that of the refused request; None for the one that is being read."""
        if method is None and self._reader.head is not None:
            method = self._reader.head.method
        self._link.write(encode(error.response(), closes=True, with_body=method != "HEAD"))
        self._finish()

    def _finish(self) -> None:
        self._answer_state = AnswerState.OVER
        self._complete.clear()
        self._lingers_until = self._shared.sweeper.now() + LINGER_S
        self._link.resume()
        self._link.finish()
