"""Secrets: opaque tokens, the page's CSRF token, and where a request came from."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import secrets
from typing import Any

__all__ = [
    "TrustedProxies",
    "client_address",
    "csrf_token",
    "digest",
    "is_same",
    "new_token",
]


def new_token() -> str:
    """An opaque token of 240 bits."""
    return secrets.token_urlsafe(30)


def digest(token: str) -> str:
    """What is stored of a token: its SHA-256. Tokens are random, so nothing slower is needed."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def csrf_token(session_token: str) -> str:
    """The token a page sends back as X-XSRF-TOKEN: bound to the session, and of no use for anything else."""
    return hmac.digest(session_token.encode("utf-8", "surrogatepass"), b"smartlink xsrf", "sha256").hex()


def is_same(expected: str, received: str) -> bool:
    """Compare in constant time."""
    return hmac.compare_digest(expected.encode(), received.encode("utf-8", "surrogatepass"))


class TrustedProxies:
    """Those whose X-Forwarded-For is believed: addresses and networks, separated by commas.

    Raises ValueError for anything else.
    """

    def __init__(self, listed: str = "") -> None:
        names = filter(None, map(str.strip, listed.split(",")))
        self._networks = tuple(ipaddress.ip_network(name, strict=False) for name in names)

    def __contains__(self, address: str) -> bool:
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(parsed in network for network in self._networks)


def client_address(scope: Any, trusted: TrustedProxies) -> str:
    """Where a request came from, as a rate limit sees it: an IPv4 address or an IPv6 /64.

    X-Forwarded-For is believed from trusted proxies only, from the right, up to the first that is not one of them.
    """
    client = scope.get("client")
    address: str = client[0] if client else "unknown"
    if address in trusted:
        sent = b",".join(value for name, value in scope["headers"] if name == b"x-forwarded-for").decode("latin-1")
        for hop in reversed([part.strip() for part in sent.split(",") if part.strip()]):
            address = hop
            if hop not in trusted:
                break
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address[:64]
    if parsed.version == 6:
        return str(ipaddress.ip_network((parsed, 64), strict=False).network_address)
    return str(parsed)
