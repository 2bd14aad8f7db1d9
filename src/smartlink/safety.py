"""What server, portal and library agree on before they serve other machines: sample secrets, and what is local."""

from __future__ import annotations

import ipaddress

__all__ = ["SAMPLE_SECRETS", "UnsafeSettings", "is_loopback"]

SAMPLE_SECRETS = frozenset({"app-secret", "secret", "reverb-secret", "your-app-secret", "changeme"})
"""Secrets from published examples, which are safe on one machine only."""


class UnsafeSettings(ValueError):
    """The settings must not be used to serve other machines; the message says what to change."""


def is_loopback(host: str) -> bool:
    """Return whether `host` is this machine, without resolving names: `localhost` or a loopback address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
