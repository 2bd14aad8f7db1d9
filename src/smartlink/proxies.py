"""The address of a client behind proxies, from X-Forwarded-For."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import TypeAlias

__all__ = ["UNIX", "TrustedProxies"]

UNIX = "unix"
"""Stands for the address of a peer on a Unix socket."""

_Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
_Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address


class TrustedProxies:
    """Trusted proxies: addresses, networks in CIDR notation, or `unix`. Raises ValueError for an invalid one."""

    def __init__(self, proxies: Iterable[str] = ()) -> None:
        names = frozenset(proxies)
        self._trusts_unix = UNIX in names
        self._networks: tuple[_Network, ...] = tuple(
            ipaddress.ip_network(name, strict=False) for name in names - {UNIX}
        )

    def client(self, peer: str, forwarded_for: str | None) -> str:
        """Return the client's address: the rightmost one in `X-Forwarded-For` that is not a trusted proxy.

        The header is ignored unless `peer` is trusted. An invalid address ends the search, since those to its left
        may be forged; the client is then the last proxy found.
        """
        client = _canonical(peer)
        if forwarded_for is None or client not in self:
            return client
        for text in reversed(forwarded_for.split(",")):
            address = _parse(text.strip())
            if address is None:
                return client
            client = str(address)
            if client not in self:
                return client
        return client

    def __contains__(self, address: str) -> bool:
        if address == UNIX:
            return self._trusts_unix
        parsed = _parse(address)
        return parsed is not None and any(parsed in network for network in self._networks)


def _canonical(peer: str) -> str:
    """Return a peer's address, with IPv4 mapped into IPv6 as IPv4."""
    if ":" not in peer:
        return peer
    address = _parse(peer)
    return peer if address is None else str(address)


def _parse(text: str) -> _Address | None:
    """Return an address without its port, with IPv4 mapped into IPv6 as IPv4; None if it is invalid."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address
