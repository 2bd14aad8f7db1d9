"""Ports for servers that tests start."""

from __future__ import annotations

import contextlib
import secrets
import socket
from pathlib import Path

__all__ = ["free_port", "free_port_with_bus"]

LOWEST = 10_240
BUS = 10_000
"""How much higher a Redis Cluster node's bus listens."""


def free_port() -> int:
    """A port nobody listens on, below those the kernel gives to connections: none takes it before the server does."""
    while True:
        port = LOWEST + secrets.randbelow(_first_given() - LOWEST)
        if _is_free(port):
            return port


def free_port_with_bus() -> int:
    """A free port, of which the one `BUS` higher is free too."""
    while not _is_free((port := free_port()) + BUS):
        pass
    return port


def _first_given() -> int:
    # Where the kernel gives away nearly all, its usual first one divides as well as another.
    given = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    return given if given > LOWEST + 1_000 else 32_768


def _is_free(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
        return True
    return False
