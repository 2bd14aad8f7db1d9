"""Requests and answers of the HTTP API as records, and answers as bytes.

The records are Structs: they are made for every call, and a frozen dataclass takes several times as long.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Protocol

import msgspec

__all__ = ["HttpError", "HttpRequest", "HttpResponse", "ResponseStream", "StreamListener", "encode"]


class HttpRequest(msgspec.Struct, frozen=True):
    """One whole request. `path` is without the server's prefix, undecoded; header names are lower case."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes = b""
    client_address: str = ""
    """Of the client itself, behind whatever trusted proxies; `unix` on a Unix socket."""


class HttpResponse(msgspec.Struct, frozen=True):
    """An answer; `body` is JSON."""

    body: bytes = b"{}"
    status: int = 200
    headers: Mapping[str, str] = {}


class HttpError(Exception):
    """The caller's fault, or a passing state of ours: answered with `status` and a sentence that says what to do."""

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers or {}

    def response(self) -> HttpResponse:
        return HttpResponse(msgspec.json.encode({"error": str(self)}), self.status, self.headers)


class StreamListener(Protocol):
    """What a `ResponseStream` tells."""

    def on_lost(self) -> None:
        """The peer is gone before the end; told once, and nothing afterwards."""

    def on_backlog(self) -> None:
        """The peer does not take what is written as fast as it comes."""

    def on_drained(self) -> None: ...


class ResponseStream(Protocol):
    """An answer that is written as its parts come, and may stay open. After its end nothing has an effect."""

    listener: StreamListener | None

    @property
    def is_lost(self) -> bool: ...

    @property
    def buffered(self) -> int:
        """Bytes that were written and that the kernel has not taken."""

    @property
    def peer(self) -> str: ...

    def begin(self, headers: Mapping[str, str]) -> None:
        """Take the request over: status 200, these headers. They leave with the first part."""

    def write(self, data: bytes) -> None:
        """Write a part, which may be empty. Never waits, never raises."""

    def drop_queued(self) -> None:
        """Forget the parts that wait, but for the one that has been begun."""

    def end(self) -> None:
        """The answer is whole."""

    def abort(self) -> None:
        """Cut the answer off, so that the peer knows it is not whole."""


_PHRASES = {status.value: status.phrase for status in HTTPStatus}
_OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"


def encode(response: HttpResponse, *, closes: bool, with_body: bool = True) -> bytes:
    """An answer as bytes. `closes` says so in the answer."""
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
