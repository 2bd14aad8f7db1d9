"""The head of a request: parsed and checked in one pass. RFC 9112, sections 2 to 6.

What two servers could read differently is refused: sections 2.2, 3.2, 5.1, 5.2, 6.1 and 6.3.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache

import msgspec

from smartlink.server.net.requests import HttpError

__all__ = ["MAX_HEAD_BYTES", "Head", "fields_of", "has_stray_newline", "lines_of", "malformed", "parse_head"]

MAX_HEAD_BYTES = 16_384
MAX_HEADERS = 100
MAX_SEEN_BYTES = 1_024
"""Longer headers are not remembered."""

_METHODS = frozenset({"GET", "HEAD", "POST", "OPTIONS", "PUT", "PATCH", "DELETE"})
_OTHER_METHODS = frozenset({"CONNECT", "SETUP", "SOURCE", "TRACE"})
"""Of proxies, RTSP and Icecast: told apart from nonsense."""
_OTHER_VERSIONS = frozenset({"HTTP/0.9", "HTTP/2.0"})
_HOST = re.compile(r"(?:[-A-Za-z0-9._~!$&'()*+,;=%]+|\[[0-9A-Fa-f:.]+\])?(?::[0-9]{0,5})?\Z")
_URL = re.compile(r"https?://([^/?#]*)(.*)\Z", re.IGNORECASE)
_TOKEN = re.compile(r"[-!#$%&'*+.^_`|~0-9A-Za-z]+\Z")
_LENGTH_DIGITS = 19
"""Of the largest 64-bit number."""
_TEXT = bytes(byte for byte in range(256) if byte >= 0x20 and byte != 0x7F) + b"\t\r\n"
"""All but control characters."""
_GIVEN_ONCE = frozenset(
    {"content-length", "expect", "host", "idempotency-key", "origin", "sec-websocket-key", "sec-websocket-version"}
    | {"transfer-encoding"}
)


def malformed(why: str) -> HttpError:
    """The refusal of what is no HTTP/1.1."""
    return HttpError(400, f"Malformed request: {why}")


class Fields(msgspec.Struct, frozen=True):
    """The header lines of a request. Names are lower case; values of repeated headers are joined by commas."""

    headers: Mapping[str, str]
    length: int | None
    """Bytes of the body; None if it comes in chunks."""
    closes: bool
    """Whether no request follows this one."""


class Head(msgspec.Struct, frozen=True):
    """A valid head. `length` and `headers` as in `Fields`."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    length: int | None
    is_http_1_0: bool
    """As some proxies speak it: no chunked answers, and no request after this one."""
    keeps_alive: bool


def has_stray_newline(data: bytes, start: int = 0) -> bool:
    """Whether there is a line feed without a carriage return."""
    return data.count(b"\n", start) != data.count(b"\r\n", start)


def parse_head(block: bytes) -> Head:
    """Parse a head without its final blank line. Raises HttpError."""
    first, _, rest = block.partition(b"\r\n")
    (line,) = lines_of(first)
    # Publishers send the same headers again and again, behind ever new targets.
    fields = _fields_of_seen(rest) if len(rest) <= MAX_SEEN_BYTES else _fields(rest)
    method, target, version = _request_line(line)
    headers = fields.headers
    is_http_1_0 = version != "HTTP/1.1"
    if is_http_1_0:
        if "transfer-encoding" in headers or "upgrade" in headers:
            why = "HTTP/1.0 has neither Transfer-Encoding nor Upgrade: configure the proxy to use HTTP/1.1"
            raise HttpError(400, why)
    elif "host" not in headers:
        raise HttpError(400, "The Host header is missing")
    if not target.startswith("/"):
        target = _origin_form(target, headers.get("host", ""))
    path, _, query = target.partition("?")
    # Close after answers to HTTP/1.0, even if keep-alive was requested: its clients may wait for the close.
    keeps_alive = not (is_http_1_0 or fields.closes)
    return Head(method, path, query, headers, fields.length, is_http_1_0, keeps_alive)


def _fields(block: bytes) -> Fields:
    headers = fields_of(lines_of(block)) if block else {}
    if not _HOST.match(headers.get("host", "")):
        raise HttpError(400, "The Host header is not a host and port")
    if "expect" in headers and headers["expect"].lower() != "100-continue":
        raise HttpError(417, "The only expectation supported here is 100-continue")
    closes = any(option.strip().lower() == "close" for option in headers.get("connection", "").split(","))
    return Fields(headers, _length(headers), closes)


_fields_of_seen = lru_cache(maxsize=256)(_fields)


def lines_of(block: bytes) -> list[str]:
    """The lines of a head or of trailers. Raises HttpError."""
    text = block.decode("latin-1")
    lines = text.split("\r\n")
    newlines = len(lines) - 1
    if text.count("\n") != newlines or text.count("\r") != newlines or block.translate(None, _TEXT):
        raise malformed("a control character, or a line that does not end in CR LF")
    return lines


def fields_of(lines: Sequence[str]) -> dict[str, str]:
    """Header or trailer lines by name. Raises HttpError."""
    if len(lines) > MAX_HEADERS:
        raise HttpError(431, f"More than {MAX_HEADERS} headers")
    fields: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon:
            raise malformed("a header without a colon")
        key = _name(name)
        value = value.strip(" \t")
        if key in fields:
            if key in _GIVEN_ONCE:
                raise HttpError(400, f"The header {key} is given twice")
            value = f"{fields[key]}, {value}"
        fields[key] = value
    return fields


@lru_cache(maxsize=256)
def _name(name: str) -> str:
    """The lower-case form of a header's name; clients of one library send the same ones. Raises HttpError."""
    if not _TOKEN.match(name):
        raise malformed(f"{name[:40]!r} is not the name of a header")
    return name.lower()


def _request_line(line: str) -> tuple[str, str, str]:
    words = line.split(" ")
    if len(words) != 3:
        words = _words(words)
    method, target, version = words
    if not target.isascii() or "\t" in target:
        raise malformed("the target has other characters than those of a URL")
    if method not in _METHODS:
        if method in _OTHER_METHODS:
            raise HttpError(501, f"The method {method} is not supported here")
        raise malformed(f"{method[:20]!r} is not a method")
    if version != "HTTP/1.1" and version != "HTTP/1.0":
        if version in _OTHER_VERSIONS:
            raise HttpError(505, "This server speaks HTTP/1.1")
        raise malformed(f"{version[:20]!r} is not a version of HTTP")
    return method, target, version


def _words(words: list[str]) -> list[str]:
    """The words of a request line with other blanks than two, which is valid between target and version only."""
    if len(words) == 2 and words[0] in _METHODS and words[1].startswith("/"):
        return [*words, "HTTP/0.9"]
    if len(words) < 3 or not words[1] or not words[-1] or any(words[2:-1]):
        raise malformed("the request line is not a method, a target and a version")
    return [*words[:2], words[-1]]


def _length(headers: dict[str, str]) -> int | None:
    length = headers.get("content-length")
    coding = headers.get("transfer-encoding")
    if coding is None:
        if length is None:
            return 0
        if not (length.isascii() and length.isdigit() and len(length) <= _LENGTH_DIGITS):
            raise malformed("Content-Length is not a number")
        return int(length)
    if length is not None:
        raise malformed("Content-Length beside Transfer-Encoding")
    if coding.lower() != "chunked":
        codings = [each.strip() for each in coding.lower().split(",")]
        if "" in codings or "chunked" in codings[:-1]:
            raise malformed("chunked must be the last Transfer-Encoding, and given once")
        raise HttpError(501, "The only Transfer-Encoding supported here is chunked")
    return None


def _origin_form(target: str, host: str) -> str:
    """The request target from its path on. RFC 9112, section 3.2.2: absolute URLs must be accepted too."""
    url = _URL.match(target)
    if url is None or url[1].lower() != host.lower():
        raise HttpError(400, "The request target must be a path, or a URL whose host matches the Host header")
    rest = url[2]
    return rest if rest.startswith("/") else f"/{rest}"
