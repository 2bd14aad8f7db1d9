"""Opaque tokens, the pages' CSRF token, and the client's address behind trusted proxies."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import secrets
from typing import Any

from smartlink.proxies import TrustedProxies

__all__ = [
    "client_address",
    "csrf_token",
    "digest",
    "is_same",
    "new_token",
]


def new_token() -> str:
    """Return a new opaque token of 240 bits."""
    return secrets.token_urlsafe(30)


def digest(token: str) -> str:
    """Return the SHA-256 to store of a token. Tokens are random, so nothing slower is needed."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def csrf_token(session_token: str) -> str:
    """Return the token that a page sends as X-XSRF-TOKEN. It is bound to the session and reveals nothing of it."""
    return hmac.digest(session_token.encode("utf-8", "surrogatepass"), b"smartlink xsrf", "sha256").hex()


def is_same(expected: str, received: str) -> bool:
    """Return whether the two are equal, in constant time."""
    return hmac.compare_digest(expected.encode(), received.encode("utf-8", "surrogatepass"))


def client_address(scope: Any, trusted: TrustedProxies) -> str:
    """Return the client's address for rate limits: an IPv4 address or an IPv6 /64. See `TrustedProxies.client`."""
    client = scope.get("client")
    peer: str = client[0] if client else "unknown"
    sent = b",".join(value for name, value in scope["headers"] if name == b"x-forwarded-for").decode("latin-1")
    address = trusted.client(peer, sent or None)
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address[:64]
    if parsed.version == 6:
        return str(ipaddress.ip_network((parsed, 64), strict=False).network_address)
    return str(parsed)
