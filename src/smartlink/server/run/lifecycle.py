"""The life of one server: start, reload, drain, stop."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import structlog

from smartlink.protocol.errors import Code
from smartlink.server.apps.base import App, AppChange, AppManager, ending
from smartlink.server.apps.reloading import reload_apps
from smartlink.server.core.hub import Connection, Hub
from smartlink.server.core.node import Node
from smartlink.server.net.capacity import Capacity
from smartlink.server.net.link import Handler, Link, Poller
from smartlink.server.net.listener import Listener
from smartlink.server.net.sockets import open_listeners
from smartlink.server.net.tls import Certificate
from smartlink.server.observe.agent import Agent
from smartlink.server.runtime.eager import EagerTasks
from smartlink.server.runtime.metrics import Metrics
from smartlink.server.runtime.rates import RateSampler
from smartlink.server.runtime.sweeper import Sweeper, Watched
from smartlink.server.settings.config import ServerSettings
from smartlink.server.webhooks.delivery import Webhooks

if TYPE_CHECKING:
    from smartlink.server.transports.ingest import RedisIngest

__all__ = ["RealtimeServer"]

CLOSES_PER_S = 500
"""Clients reconnect as fast as they are closed; this many at once is not a storm."""
PACE_S = 0.02
FAREWELL_S = 3.0
LAST_ANSWERS_S = 1.0

log = structlog.get_logger(__name__)


class RealtimeServer:
    """A realtime server on one port. Built by `bootstrap.build`; bound to the loop it is started on."""

    def __init__(
        self,
        settings: ServerSettings,
        *,
        node: Node,
        hub: Hub,
        apps: AppManager,
        forget_rates: Callable[[App], None],
        tasks: EagerTasks,
        webhooks: Webhooks | None,
        sweeper: Sweeper,
        metrics: Metrics,
        rates: RateSampler,
        capacity: Capacity,
        poller: Callable[[], Poller],
        handler: Callable[[Link], Handler],
        retire: Callable[[], int],
        observer: Watched,
        agent: Agent,
        ingest: RedisIngest | None = None,
    ) -> None:
        """`webhooks` is set if this server starts and stops them. `retire` ends idle HTTP connections,
        and returns how many are left.
        """
        self.settings = settings
        self.metrics = metrics
        self.node = node
        self.agent = agent
        self.rates = rates
        self.port = settings.reverb_server_port
        self.is_ready = False
        self.is_replaced = False
        """Shutting down, with a successor that already accepts."""
        self._hub = hub
        self._apps = apps
        self._forget_rates = forget_rates
        self._tasks = tasks
        self._webhooks = webhooks
        self._sweeper = sweeper
        self._make_poller = poller
        self._handler = handler
        self._capacity = capacity
        self._retire = retire
        self._observer = observer
        self._reloads: set[asyncio.Task[None]] = set()
        self._certificate: Certificate | None = None
        self._ingest = ingest
        self._poller: Poller | None = None
        self._listeners: list[Listener] = []
        self._is_stopping = False

    async def start(self, listeners: Sequence[socket.socket] | None = None) -> None:
        """Start listening. Takes ownership of `listeners` if given; without any, connections come by `attached`.

        Raises OSError if the port is unavailable, UnsafeSettings if the settings are unsafe or Redis rejects our
        credentials, BadCertificate, AppsInvalid, and QueueUnavailable.
        """
        settings = self.settings
        settings.check_start()
        self._certificate = Certificate.of(settings)
        sockets = open_listeners(settings)[0] if listeners is None else listeners
        self.port = next((s.getsockname()[1] for s in sockets if s.family != socket.AF_UNIX), self.port)
        try:
            await self._apps.start(self._on_app_changes)
            await self.node.start()
            if self._webhooks is not None:
                await self._webhooks.start()
        except BaseException:
            for listener in sockets:
                listener.close()
            await self.node.stop()
            raise
        self._poller = self._make_poller()
        if self._ingest is not None:
            self._ingest.start()
        self._sweeper.add_source(self._hub)
        self._sweeper.add_source(self.rates)
        self._sweeper.add_source((self._observer,))
        self._sweeper.start()
        self.is_ready = True
        for listener in sockets:
            # Peers on the Unix socket are on this machine, usually a proxy: nothing to encrypt.
            certificate = None if listener.family == socket.AF_UNIX else self._certificate
            context = None if certificate is None else certificate.context
            self._listeners.append(Listener(listener, self._poller, self._capacity, self._handler, context))
        # These objects live as long as the process: exempt them from garbage collection.
        gc.collect()
        gc.freeze()
        if sockets:
            log.info("realtime server listening", host=settings.reverb_server_host, port=self.port)
        else:
            log.info("realtime server started within an application")

    @property
    def certificate(self) -> Certificate | None:
        """The certificate for clients, if this server terminates TLS."""
        return self._certificate

    @contextlib.contextmanager
    def attached(self, link: Link) -> Iterator[bool]:
        """Serve a connection that another server has accepted, within the block. Yields whether there is room for it;
        if so, the link's handler is set.
        """
        if not self._capacity.make_room():
            yield False
            return
        link.handler = self._handler(link)
        self._capacity.over_tls.add(link)
        try:
            yield True
        finally:
            self._capacity.over_tls.discard(link)
            link.abort()

    def reload(self) -> None:
        """Reload applications and certificate. Errors are logged, and the old values stay in use."""
        task = asyncio.get_running_loop().create_task(reload_apps(self._apps))
        self._reloads.add(task)
        task.add_done_callback(self._reloads.discard)
        if self._certificate is not None:
            self._certificate.reload()

    async def stop(self, *, is_replaced: bool = False) -> None:
        """Drain and stop: not ready at once, connections closed with 4200 at a limited rate, pending calls answered.

        If `is_replaced`, stop accepting at once because a successor accepts on the same sockets. Otherwise keep
        accepting until the end, to tell clients that the server is stopping.
        """
        if self._poller is None or self._is_stopping:
            return
        self._is_stopping = True
        self.is_ready = False
        self.is_replaced = is_replaced
        if is_replaced:
            self._close_listeners()
        if self._webhooks is not None:
            self._webhooks.drain()
        if self._ingest is not None:
            await self._ingest.stop()
        await self._close_connections()
        self._close_listeners()
        # A client whose handshake is cut off comes back late: answer those that were accepted last.
        await self._until_all_have_left(LAST_ANSWERS_S)
        await self._tasks.stop()
        if self._webhooks is not None:
            await self._webhooks.stop()
        await self._sweeper.stop()
        self.agent.stop()
        await self.node.stop()
        for task in self._reloads:
            task.cancel()
        await self._apps.stop()
        self._poller.close()
        self._poller = None
        log.info("realtime server stopped")

    def _on_app_changes(self, changes: Sequence[AppChange]) -> None:
        """Close the connections of apps whose credentials changed or that are gone. New limits apply to new
        connections, new policies of channels at once.
        """
        for change in changes:
            self._forget_rates(change.before)
            if change.now is not None and change.now.channels != change.before.channels:
                self.node.policies_changed(change.now.id)
            if (why := ending(change.before, change.now)) is not None:
                connections = list(self._hub.tenant(change.before.id).connections.values())
                self._tasks.run(self._close(connections, *why))

    async def _close(self, connections: Sequence[Connection], code: Code, reason: str) -> None:
        step = max(1, int(CLOSES_PER_S * PACE_S))
        for start in range(0, len(connections), step):
            for connection in connections[start : start + step]:
                connection.close(code, reason)
            await asyncio.sleep(PACE_S)

    async def _close_connections(self) -> None:
        connections = list(self._hub)
        pace = max(CLOSES_PER_S, len(connections) / max(self.settings.reverb_server_drain_seconds, PACE_S)) * PACE_S
        step = max(1, int(pace))
        for start in range(0, len(connections), step):
            for connection in connections[start : start + step]:
                connection.close(Code.RECONNECT, "The server is restarting: reconnect")
            await asyncio.sleep(PACE_S)
        # Peers answer the close; those that do not in time are ended with the poller.
        await self._until_all_have_left(FAREWELL_S)

    async def _until_all_have_left(self, within_s: float) -> None:
        """Retire HTTP connections, those with pending calls after their responses, and wait for all to end."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while self._retire():  # noqa: ASYNC110 — nobody tells of requests that end
                    await asyncio.sleep(PACE_S)
                await self._sweeper.wait_empty()

    def _close_listeners(self) -> None:
        for listener in self._listeners:
            listener.close()
        self._listeners.clear()
