"""Hosts and ports in URLs."""

from __future__ import annotations

__all__ = ["netloc"]


def netloc(host: object, port: object) -> str:
    """`host:port`, with IPv6 addresses in brackets whether or not they came with them."""
    name = str(host)
    return f"[{name.strip('[]')}]:{port}" if ":" in name else f"{name}:{port}"
