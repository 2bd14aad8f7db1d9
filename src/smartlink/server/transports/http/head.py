"""The head of a request: its validation and target. RFC 9112, sections 3.2 and 6.1."""

from __future__ import annotations

import re
from collections.abc import Mapping

from smartlink.server.net.requests import HttpError, HttpRequest

__all__ = ["Begun", "fault_of_head", "origin_form", "without_offer"]

_METHODS = frozenset({"GET", "HEAD", "POST", "OPTIONS", "PUT", "PATCH", "DELETE"})
_HOST = re.compile(r"(?:[-A-Za-z0-9._~!$&'()*+,;=%]+|\[[0-9A-Fa-f:.]+\])?(?::[0-9]{0,5})?\Z")


class Begun:
    """An incomplete request. `raw_size`: bytes read since its head, including chunk sizes and trailers."""

    __slots__ = ("body", "has_head", "head_bytes", "headers", "is_checked", "raw_size", "size", "url")

    def __init__(self) -> None:
        self.url = b""
        self.headers: dict[str, str] = {}
        self.has_head = False
        self.is_checked = False
        self.body: list[bytes] = []
        self.size = 0
        self.raw_size = 0
        self.head_bytes = 0


def fault_of_head(headers: Mapping[str, str], version: str, method: str) -> HttpError | None:
    """What is wrong with a head, or ambiguous between servers."""
    if version not in ("1.1", "1.0"):
        return HttpError(505, "This server speaks HTTP/1.1")
    if method not in _METHODS:
        return HttpError(501, f"The method {method[:20]} is not supported here")
    if version == "1.1" and "host" not in headers:
        return HttpError(400, "The Host header is missing")
    if not _HOST.match(headers.get("host", "")):
        return HttpError(400, "The Host header is not a host and port")
    if version == "1.0" and ("transfer-encoding" in headers or "upgrade" in headers):
        return HttpError(400, "HTTP/1.0 has neither Transfer-Encoding nor Upgrade: configure the proxy to use HTTP/1.1")
    if "transfer-encoding" in headers and headers["transfer-encoding"].lower() != "chunked":
        return HttpError(501, "The only Transfer-Encoding supported here is chunked")
    if "expect" in headers and headers["expect"].lower() != "100-continue":
        return HttpError(417, "The only expectation supported here is 100-continue")
    return None


def origin_form(begun: Begun) -> str:
    """The request target from its path on. RFC 9112, section 3.2.2: absolute URLs must be accepted too."""
    target = begun.url.decode("latin-1")
    if target.startswith("/"):
        return target
    scheme, _, rest = target.partition("://")
    authority, slash, path = rest.partition("/")
    if scheme.lower() not in ("http", "https") or authority.lower() != begun.headers.get("host", "").lower():
        raise HttpError(400, "The request target must be a path, or a URL whose host matches the Host header")
    return slash + path


def without_offer(request: HttpRequest) -> bytes:
    """The head of `request` without its offer to upgrade the protocol."""
    headers = {name: value for name, value in request.headers.items() if name != "upgrade"}
    options = headers.get("connection", "").split(",")
    headers["connection"] = ",".join(option for option in options if option.strip().lower() != "upgrade")
    target = f"{request.path}?{request.query}" if request.query else request.path
    lines = [f"{request.method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
