"""Starts the realtime server within the application's process; the only module of the library that knows the server."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from smartlink.broadcasting.config import BroadcastSettings
from smartlink.broadcasting.errors import BroadcastConfigError
from smartlink.safety import is_loopback

__all__ = ["server_beside"]

_OWN_DRIVERS = frozenset({"reverb", "redis"})
_log = logging.getLogger("smartlink.broadcasting")


@asynccontextmanager
async def server_beside(settings: BroadcastSettings) -> AsyncIterator[int | None]:
    """Run the server that `settings` publish to, and yield its port; None where it is elsewhere.

    It is elsewhere with REVERB_SERVER_EMBEDDED=false, and with a driver that publishes to another service. Raises
    BroadcastConfigError if the server's packages are missing, and what `embedded_server` raises.
    """
    if not settings.reverb_server_embedded:
        yield None
        return
    if settings.driver not in _OWN_DRIVERS:
        _log.info("BROADCAST_DRIVER=%s does not publish to the realtime server: none is embedded", settings.driver)
        yield None
        return
    try:
        from smartlink.server.run.embedded import embedded_server
        from smartlink.server.settings.config import ServerSettings
    except ModuleNotFoundError as missing:
        raise BroadcastConfigError(
            f"embedded=True runs the realtime server in this process, and {missing.name} is not installed: "
            "pip install 'smartlink-realtime[server,broadcasting]', or set REVERB_SERVER_EMBEDDED=false"
        ) from None
    same: dict[str, Any] = {
        "reverb_app_id": settings.reverb_app_id,
        "reverb_app_key": settings.reverb_app_key,
        "reverb_app_secret": settings.reverb_app_secret.get_secret_value(),
    }
    if (port := _port(settings)) is not None:
        same["reverb_server_port"] = port
    async with embedded_server(ServerSettings(**same)) as server:
        yield None if server is None else server.port


def _port(settings: BroadcastSettings) -> int | None:
    """Return the port that the library's settings name for a server on this machine, if they do."""
    if settings.reverb_server_port is not None:
        return settings.reverb_server_port
    # Without a port of its own, a server at a local address is where events are sent; elsewhere that is a proxy's.
    return settings.reverb_port if is_loopback(settings.reverb_host) else None
