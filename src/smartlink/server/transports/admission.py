"""Admission of clients over every transport: origin, application, protocol version and capacity."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from functools import lru_cache
from urllib.parse import parse_qs, urlsplit

from smartlink.protocol.errors import Code
from smartlink.protocol.session import Session, SessionRules
from smartlink.server.apps.base import App
from smartlink.server.core.node import Node
from smartlink.server.net.requests import HttpRequest
from smartlink.server.runtime.limits import AddressCount

__all__ = ["WRONG_ORIGIN", "client_of", "is_allowed_origin", "may_call", "new_session", "refusal"]

_PROTOCOLS = frozenset({"5", "6", "7"})
_VERSION = re.compile(r"[-+. _0-9A-Za-z]{1,64}\Z")
MAX_SEEN_LENGTH = 200
"""Longer queries are not cached."""
MAX_CLIENT_LENGTH = 40
_PORTS = {"http": 80, "https": 443}


WRONG_ORIGIN = "This origin may not connect to the application"


def may_call(app: App, request: HttpRequest) -> bool:
    """Whether the requesting page may connect, by its origin. Clients other than browsers send none."""
    origin = request.headers.get("origin")
    return origin is None or is_allowed_origin(origin, app.allowed_origins)


def is_allowed_origin(origin: str, allowed: Iterable[str]) -> bool:
    """Whether `allowed` includes this origin.

    `https://example.com:8443` matches that origin only, with or without a default port; `example.com` that host with
    any scheme and port; `*.example.com`, with or without a scheme, all its subdomains; `*` everything.
    """
    allowed = tuple(allowed)
    if "*" in allowed or origin in allowed:
        return True
    parts = _parts(origin)
    return parts is not None and any(_matches(parts, pattern) for pattern in allowed)


def refusal(node: Node, addresses: AddressCount, app: App | None, request: HttpRequest) -> tuple[Code, str] | None:
    """Why the requesting client may not connect, as close code and reason; None if it may."""
    if app is None:
        return Code.NO_SUCH_APP, "No application has this key"
    if not app.is_enabled:
        return Code.APP_DISABLED, "This application is disabled"
    query = request.query
    # Clients of one library all send the same query.
    fault = _fault_of_seen(query) if len(query) <= MAX_SEEN_LENGTH else _fault_of(query)
    if fault is not None:
        return fault
    if not node.has_descriptors():
        return Code.OVER_CAPACITY, "This server has reached its connection limit"
    if not node.has_room(app):
        return Code.OVER_CAPACITY, f"The application has reached its limit of {app.max_connections} connections"
    if not addresses.has_room(app.id, request.client_address):
        return Code.OVER_CAPACITY, "This address has reached its connection limit"
    return None


def _fault_of(query: str) -> tuple[Code, str] | None:
    """What is wrong with the protocol or version that a client names."""
    parameters = parse_qs(query)
    protocol = parameters.get("protocol", ["7"])[0]
    if protocol not in _PROTOCOLS:
        return Code.UNSUPPORTED_PROTOCOL, "This server speaks protocol 7"
    version = parameters.get("version")
    if version is not None and _VERSION.match(version[0]) is None:
        return Code.INVALID_VERSION, "version must be that of the client library, such as 8.6.0"
    return None


_fault_of_seen = lru_cache(maxsize=256)(_fault_of)


def _client_of(query: str) -> str:
    """The client library that a query names, such as `js 8.4.0`; empty if it names none."""
    parameters = parse_qs(query)
    words = [parameters.get(name, [""])[0][:MAX_CLIENT_LENGTH] for name in ("client", "version")]
    return " ".join(word for word in words if word)


_client_of_seen = lru_cache(maxsize=256)(_client_of)


def client_of(query: str) -> str:
    """The client library that a query names; one text for all connections with the same query."""
    return _client_of_seen(query) if len(query) <= MAX_SEEN_LENGTH else _client_of(query)


def new_session(app: App) -> Session:
    """A session with an unguessable socket id."""
    bits = int.from_bytes(os.urandom(8)) >> 2
    rules = _rules(
        app.key,
        app.secret,
        app.activity_timeout_s,
        app.accepts_client_events,
        app.accepts_public_client_events,
        app.max_channels,
        app.max_user_info_bytes,
        app.max_channel_length,
        app.max_event_name_length,
    )
    return Session(f"{bits >> 31}.{bits & 0x7FFFFFFF}", rules)


@lru_cache(maxsize=1_024)
def _rules(
    key: str,
    secret: str,
    activity_timeout_s: int,
    accepts_client_events: bool,
    accepts_public_client_events: bool,
    max_channels: int | None,
    max_user_info_bytes: int,
    max_channel_length: int,
    max_event_name_length: int,
) -> SessionRules:
    """One record shared by all connections with the same rules."""
    return SessionRules(
        key=key,
        secret=secret,
        activity_timeout_s=activity_timeout_s,
        accepts_client_events=accepts_client_events,
        accepts_public_client_events=accepts_public_client_events,
        max_channels=max_channels,
        max_user_info_bytes=max_user_info_bytes,
        max_channel_length=max_channel_length,
        max_event_name_length=max_event_name_length,
    )


@lru_cache(maxsize=1_024)
def _parts(origin: str) -> tuple[str, str, int | None] | None:
    """Scheme, host and port of an origin, lower case; None if it is invalid, like `null`."""
    try:
        split = urlsplit(origin.lower())
        port = split.port
    except ValueError:
        return None
    if not split.scheme or not split.hostname or split.path or split.query or split.fragment or "@" in split.netloc:
        return None
    return split.scheme, split.hostname, port or _PORTS.get(split.scheme)


def _matches(origin: tuple[str, str, int | None], pattern: str) -> bool:
    scheme, host, port = origin
    if "://" not in pattern:
        return _matches_host(host, pattern.lower())
    wanted = _parts(pattern)
    return wanted is not None and (scheme, port) == (wanted[0], wanted[2]) and _matches_host(host, wanted[1])


def _matches_host(host: str, pattern: str) -> bool:
    if pattern.startswith("*."):
        return host.endswith(pattern[1:]) and len(host) > len(pattern) - 1
    return host == pattern
