"""The realtime server inside an application's own process: for development, tests and small installations.

app = FastAPI(lifespan=embedded)
"""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog

from smartlink.server.net.sockets import open_listeners, raise_descriptor_limit
from smartlink.server.run.bootstrap import build
from smartlink.server.run.lifecycle import RealtimeServer
from smartlink.server.settings.config import ServerSettings

__all__ = ["ServerRunsAlready", "embedded", "embedded_server"]

DRAIN_S = 0.5
"""The default in place of the stand-alone server's: an application being developed restarts often."""

_ports_here: set[int] = set()

log = structlog.get_logger(__name__)


class ServerRunsAlready(RuntimeError):
    """The port is taken: by a server of its own, another worker of the application, or the application itself."""


@asynccontextmanager
async def embedded(app: object = None) -> AsyncIterator[None]:
    """Run the server on its own port for as long as the application runs.

    `lifespan=embedded` of FastAPI, Starlette or Litestar, or `async with embedded():` within your own lifespan, before
    what publishes. Settings are those of `smartlink reverb start`, except that there is one process, no operators'
    port, and half of the descriptors. With REVERB_SERVER_EMBEDDED=false it does nothing: that is how to move to a
    server of its own.

    Raises what `RealtimeServer.start` raises, and ServerRunsAlready: in a second worker of the application, too, unless
    Redis joins them.
    """
    del app
    async with embedded_server():
        yield  # Nothing: frameworks take what a lifespan yields for their state.


@asynccontextmanager
async def embedded_server(settings: ServerSettings | None = None) -> AsyncIterator[RealtimeServer | None]:
    """Run the server as `embedded` does, for tests and others that need its port; None where the settings forbid it."""
    own = settings or ServerSettings()
    if not own.reverb_server_embedded:
        yield None
        return
    if "reverb_server_drain_seconds" not in own.model_fields_set:
        own = own.model_copy(update={"reverb_server_drain_seconds": DRAIN_S})
    if (own.reverb_server_workers or 1) > 1:
        log.warning("embedded, the realtime server is one process", reverb_server_workers=own.reverb_server_workers)
    if own.reverb_server_port and own.reverb_server_port in _ports_here:
        raise ServerRunsAlready(
            f"This process embeds the realtime server on port {own.reverb_server_port} already. Embed it once: with "
            "Broadcasting(embedded=True) or with a lifespan of `embedded`, and in one application."
        )
    server = build(own, descriptors=raise_descriptor_limit() // 2)
    try:
        # Nodes that Redis joins may share the port: each worker of the application is one.
        await server.start(open_listeners(own, is_shared=own.reverb_scaling_enabled)[0])
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        raise ServerRunsAlready(
            f"Port {own.reverb_server_port} is in use, by another server or another worker of this application. "
            "Embedded, the realtime server needs an application of one worker, or workers joined by Redis "
            "(REVERB_SCALING_ENABLED=true); or run smartlink reverb start and set REVERB_SERVER_EMBEDDED=false."
        ) from None
    port = server.port
    _ports_here.add(port)
    try:
        yield server
    finally:
        _ports_here.discard(port)
        await server.stop()
