"""Requests and responses of the HTTP API as records, and responses as bytes.

The records are Structs because they are created for every call, and frozen dataclasses are several times slower.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Protocol

import msgspec

__all__ = ["HttpError", "HttpRequest", "HttpResponse", "ResponseStream", "StreamListener", "encode"]


class HttpRequest(msgspec.Struct, frozen=True):
    """One complete request. `path` excludes the server's prefix and is not decoded; header names are lower case."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes = b""
    client_address: str = ""
    """The client's own address, behind any trusted proxies; `unix` on a Unix socket."""
    is_http_1_0: bool = False


class HttpResponse(msgspec.Struct, frozen=True):
    """A response; `body` is JSON."""

    body: bytes = b"{}"
    status: int = 200
    headers: Mapping[str, str] = {}


class HttpError(Exception):
    """A caller's error or a temporary condition, answered with `status` and a message that says what to do."""

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers or {}

    def response(self) -> HttpResponse:
        return HttpResponse(msgspec.json.encode({"error": str(self)}), self.status, self.headers)


class StreamListener(Protocol):
    """Receives the events of a `ResponseStream`."""

    def on_lost(self) -> None:
        """The peer is gone before the end. Called once, and nothing after it."""

    def on_backlog(self) -> None:
        """The peer reads more slowly than is written."""

    def on_drained(self) -> None: ...


class ResponseStream(Protocol):
    """A response written in parts, which may stay open. Calls after its end have no effect."""

    listener: StreamListener | None

    @property
    def is_lost(self) -> bool: ...

    @property
    def buffered(self) -> int:
        """Bytes written but not yet accepted by the kernel."""

    @property
    def peer(self) -> str: ...

    def begin(self, headers: Mapping[str, str]) -> None:
        """Start the response: status 200, these headers. They are sent with the first part."""

    def write(self, data: bytes) -> None:
        """Write a part, which may be empty. Never blocks or raises."""

    def drop_queued(self) -> None:
        """Drop queued parts except a partly sent one."""

    def end(self) -> None:
        """Complete the response."""

    def abort(self) -> None:
        """Cut the response off, so that the peer knows it is incomplete."""


_PHRASES = {status.value: status.phrase for status in HTTPStatus}
_OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"


def encode(response: HttpResponse, *, closes: bool, with_body: bool = True) -> bytes:
    """Serialise a response. `closes` adds `Connection: close`."""
    if response.status == 200 and not closes and with_body and not response.headers:
        return _OK % (len(response.body), response.body)
    lines = [f"HTTP/1.1 {response.status} {_PHRASES.get(response.status, 'Unknown')}"]
    fields: dict[str, Any] = {}
    if response.status != 204:
        fields = {"Content-Type": "application/json", "Content-Length": len(response.body)}
    fields |= response.headers
    if closes:
        fields["Connection"] = "close"
    lines += [f"{name}: {value}" for name, value in fields.items()]
    head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
    return head + response.body if with_body else head
