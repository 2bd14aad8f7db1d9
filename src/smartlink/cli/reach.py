"""Compares the port that publishers connect to with the port that the server listens on."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from smartlink.safety import is_loopback

if TYPE_CHECKING:
    from smartlink.broadcasting import BroadcastSettings
    from smartlink.server.settings.config import ServerSettings

__all__ = ["port_to_write", "warn_of_port"]

TIMEOUT_S = 2.0


def warn_of_port(settings: ServerSettings) -> None:
    """Log a warning if REVERB_PORT differs from the port of this machine that the server will listen on."""
    import structlog

    from smartlink.broadcasting import BroadcastSettings

    own = BroadcastSettings()
    if _differs(own, settings):
        structlog.get_logger(__name__).warning(
            "publishers connect to another port than the server's",
            reverb_port=own.reverb_port,
            fix=f"set REVERB_PORT={settings.reverb_server_port}, unless a proxy listens on {own.reverb_port}",
        )


def port_to_write(own: BroadcastSettings, settings: ServerSettings) -> str | None:
    """Return what to change if something listens on REVERB_SERVER_PORT rather than REVERB_PORT, else None."""
    if not _differs(own, settings):
        return None
    try:
        socket.create_connection((own.reverb_host.strip("[]"), settings.reverb_server_port), TIMEOUT_S).close()
    except OSError:
        return None
    return f"a server listens on port {settings.reverb_server_port}: set REVERB_PORT={settings.reverb_server_port}"


def _differs(own: BroadcastSettings, settings: ServerSettings) -> bool:
    is_here = own.driver == "reverb" and is_loopback(own.reverb_host.strip("[]"))
    return is_here and settings.reverb_server_port not in (0, own.reverb_port)
