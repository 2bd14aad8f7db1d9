"""Which proxies are trusted to report a client's address."""

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
    """Proxies by address, network in CIDR notation, or `unix`. Raises ValueError for anything else."""

    def __init__(self, proxies: Iterable[str] = ()) -> None:
        names = frozenset(proxies)
        self._trusts_unix = UNIX in names
        self._networks: tuple[_Network, ...] = tuple(
            ipaddress.ip_network(name, strict=False) for name in names - {UNIX}
        )

    def client(self, peer: str, forwarded_for: str | None) -> str:
        """The client's address: the right-most entry of `X-Forwarded-For` that is not a trusted proxy.

        An untrusted peer is the client, whatever the header claims. The search ends at an entry that is not an address:
        anything left of it may be forged.
        """
        client = _canonical(peer)
        if forwarded_for is None or not self._trusts(client):
            return client
        for text in reversed(forwarded_for.split(",")):
            address = _parse(text.strip())
            if address is None:
                return client
            client = str(address)
            if not self._trusts(client):
                return client
        return client

    def _trusts(self, address: str) -> bool:
        if address == UNIX:
            return self._trusts_unix
        parsed = _parse(address)
        return parsed is not None and any(parsed in network for network in self._networks)


def _canonical(peer: str) -> str:
    """A peer's address as the kernel reports it, with IPv4-mapped IPv6 as IPv4."""
    if ":" not in peer:
        return peer
    address = _parse(peer)
    return peer if address is None else str(address)


def _parse(text: str) -> _Address | None:
    """Parse an address with or without port; IPv4-mapped IPv6 becomes IPv4."""
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
