"""How a host and a port stand in a URL."""

from __future__ import annotations

__all__ = ["netloc"]


def netloc(host: object, port: object) -> str:
    """`host:port`, an address of IPv6 in brackets, whether it came in them or not."""
    name = str(host)
    return f"[{name.strip('[]')}]:{port}" if ":" in name else f"{name}:{port}"
