"""Where webhooks may go: never to private addresses, unless allowed. Source: OWASP, "Server Side Request Forgery".

A name is resolved once, the result is checked, and the connection goes to the checked address: a name that resolves
differently later gains nothing.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from dataclasses import dataclass
from urllib.parse import urlsplit, urlunsplit

from smartlink.protocol.addresses import netloc

__all__ = ["Guard", "Target", "TargetRefused", "is_public"]

_NAT64 = ipaddress.ip_network("64:ff9b::/96")


class TargetRefused(Exception):
    """A webhook may not go there: `why`, and in `fix` what would allow it. The message has both."""

    def __init__(self, why: str, fix: str) -> None:
        super().__init__(f"{why}: {fix}")
        self.why = why
        self.fix = fix


@dataclass(frozen=True, slots=True)
class Target:
    """A URL with the checked address as its host, and the name that the request is for."""

    url: str
    host_header: str
    name: str


def is_public(address: str) -> bool:
    """Whether `address` is on the public internet: not private, loopback, link-local, multicast or reserved."""
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            return is_public(str(ip.ipv4_mapped))
        if ip.sixtofour is not None:
            return is_public(str(ip.sixtofour))
        if ip in _NAT64:
            return is_public(str(ipaddress.IPv4Address(int(ip) & 0xFFFF_FFFF)))
        if ip.teredo is not None or ip.is_site_local:
            return False
    return ip.is_global and not (ip.is_multicast or ip.is_reserved or ip.is_unspecified or ip.is_link_local)


class Guard:
    """Checks targets. `inside` lists private hosts (`host`, `host:port`) that are allowed, even over plain HTTP."""

    def __init__(self, *, allow_private: bool = False, allow_plain: bool = False, inside: tuple[str, ...] = ()) -> None:
        self._allow_private = allow_private
        self._allow_plain = allow_plain or allow_private
        self._inside = frozenset(entry.lower() for entry in inside)

    async def resolve(self, url: str) -> Target:
        """The target to connect to for `url`. Raises TargetRefused, and OSError if the name cannot be resolved."""
        try:
            parts = urlsplit(url)
            name, port = parts.hostname or "", parts.port
        except ValueError:
            raise TargetRefused("its URL is malformed", "write http(s)://host/…") from None
        if parts.scheme not in ("http", "https") or not name or "@" in parts.netloc:
            raise TargetRefused("its URL is malformed", "write http(s)://host/…, without credentials")
        port = port or (443 if parts.scheme == "https" else 80)
        is_inside = bool(self._inside & {name, netloc(name, port)})
        is_plain = parts.scheme == "http" and not (self._allow_plain or is_inside)
        found = await asyncio.get_running_loop().getaddrinfo(name, port, type=socket.SOCK_STREAM)
        addresses = [str(entry[4][0]) for entry in found]
        if not (self._allow_private or is_inside):
            addresses = [address for address in addresses if is_public(address)]
        if not addresses:
            raise TargetRefused("it is a private address", f"add {netloc(name, port)} to REVERB_WEBHOOK_ALLOWED_HOSTS")
        if is_plain:
            raise TargetRefused("it is plain http", "use https, or set REVERB_WEBHOOK_ALLOW_HTTP=true")
        url = urlunsplit((parts.scheme, netloc(addresses[0], port), parts.path or "/", parts.query, ""))
        return Target(url, parts.netloc, name)
