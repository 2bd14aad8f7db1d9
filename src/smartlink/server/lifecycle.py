"""The life of one server: start, drain, stop."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import ssl
from collections.abc import Callable

import structlog

from smartlink.protocol.errors import Code
from smartlink.server.config import ServerSettings
from smartlink.server.eager import EagerTasks
from smartlink.server.hub import Hub
from smartlink.server.link import Handler, Link, Poller
from smartlink.server.metrics import Metrics
from smartlink.server.node import Node
from smartlink.server.watch import Watch
from smartlink.server.webhooks.delivery import Webhooks
from smartlink.server.ws.listener import PlainListener, TlsListener, open_socket

__all__ = ["RealtimeServer"]

CLOSES_PER_S = 500
"""Reconnects arrive at the pace of the closes; a second's worth of them is no storm."""
PACE_S = 0.02
FAREWELL_S = 3.0

log = structlog.get_logger(__name__)


class RealtimeServer:
    """A realtime server on one port. Made by `bootstrap.build`; belongs to the loop it is started on."""

    def __init__(
        self,
        settings: ServerSettings,
        *,
        node: Node,
        hub: Hub,
        tasks: EagerTasks,
        webhooks: Webhooks,
        watch: Watch,
        metrics: Metrics,
        poller: Callable[[], Poller],
        handler: Callable[[Link], Handler],
    ) -> None:
        self.settings = settings
        self.metrics = metrics
        self.node = node
        self.port = settings.reverb_server_port
        self.is_ready = False
        self._hub = hub
        self._tasks = tasks
        self._webhooks = webhooks
        self._watch = watch
        self._make_poller = poller
        self._handler = handler
        self._poller: Poller | None = None
        self._listener: PlainListener | TlsListener | None = None

    async def start(self) -> None:
        """Listen. Raises OSError when the port cannot be had, UnsafeSettings when it must not be."""
        settings = self.settings
        settings.check_start()
        listener = open_socket(settings.reverb_server_host, settings.reverb_server_port, settings.reverb_server_backlog)
        self.port = listener.getsockname()[1]
        self._poller = self._make_poller()
        await self.node.start()
        await self._webhooks.start()
        self._watch.over(self._hub)
        self._watch.start()
        self.is_ready = True
        if settings.reverb_server_tls_cert is None:
            self._listener = PlainListener(listener, self._poller, self._handler)
        else:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(settings.reverb_server_tls_cert, settings.reverb_server_tls_key)
            self._listener = await TlsListener.open(listener, context, self._handler)
        # What exists now lives as long as the process: the collector need not look at it again.
        gc.collect()
        gc.freeze()
        log.info("realtime server listening", host=settings.reverb_server_host, port=self.port)

    async def stop(self) -> None:
        """Drain: unready at once, closes paced with 4200, calls under way finished. Then stop."""
        if self._poller is None:
            return
        self.is_ready = False
        self._webhooks.drain()
        await self._close_connections()
        if self._listener is not None:
            self._listener.close()
        await self._tasks.stop()
        await self._webhooks.stop()
        await self._watch.stop()
        await self.node.stop()
        self._poller.close()
        self._poller = None
        log.info("realtime server stopped")

    async def _close_connections(self) -> None:
        connections = list(self._hub)
        pace = max(CLOSES_PER_S, len(connections) / max(self.settings.reverb_server_drain_seconds, PACE_S)) * PACE_S
        step = max(1, int(pace))
        for start in range(0, len(connections), step):
            for connection in connections[start : start + step]:
                connection.close(Code.RECONNECT, "The server restarts: connect again")
            await asyncio.sleep(PACE_S)
        # The peers answer the close; those that do not within the time are ended with the poller.
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._watch.nothing_lingers(), FAREWELL_S)
