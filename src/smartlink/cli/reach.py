"""Whether publishers with these settings look for the server where a server with these settings listens."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from smartlink.broadcasting import BroadcastSettings
    from smartlink.server.settings.config import ServerSettings

__all__ = ["port_to_write", "warn_of_port"]

TIMEOUT_S = 2.0

log = structlog.get_logger(__name__)


def warn_of_port(settings: ServerSettings) -> None:
    """Say in the log that REVERB_PORT names another port of this machine than the server is about to listen on."""
    from smartlink.broadcasting import BroadcastSettings

    own = BroadcastSettings()
    if _differs(own, settings):
        log.warning(
            "publishers look for the server at another port",
            reverb_port=own.reverb_port,
            do=f"write REVERB_PORT={settings.reverb_server_port}, unless a proxy listens on {own.reverb_port}",
        )


def port_to_write(own: BroadcastSettings, settings: ServerSettings) -> str | None:
    """What to write when nothing answers at REVERB_PORT, yet a server listens at REVERB_SERVER_PORT; None else."""
    if not _differs(own, settings):
        return None
    try:
        socket.create_connection((own.reverb_host.strip("[]"), settings.reverb_server_port), TIMEOUT_S).close()
    except OSError:
        return None
    return f"a server listens on port {settings.reverb_server_port}: write REVERB_PORT={settings.reverb_server_port}"


def _differs(own: BroadcastSettings, settings: ServerSettings) -> bool:
    from smartlink.broadcasting.config import is_loopback

    is_here = own.driver == "reverb" and is_loopback(own.reverb_host.strip("[]"))
    return is_here and settings.reverb_server_port not in (0, own.reverb_port)
