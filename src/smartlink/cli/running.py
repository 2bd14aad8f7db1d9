"""Runs the realtime server, the portal and the worker, in any combination in one process, until a signal."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import TYPE_CHECKING, Any

import structlog

from smartlink.cli.failures import server_errors, take_port
from smartlink.protocol.addresses import netloc
from smartlink.server.net.sockets import raise_descriptor_limit

if TYPE_CHECKING:
    import uvicorn

    from smartlink.portal.main import Portal
    from smartlink.portal.shared.background import WorkerOptions
    from smartlink.portal.shared.settings import PortalSettings
    from smartlink.server.settings.config import ServerSettings

__all__ = ["run", "serve_all", "serve_portal", "serve_realtime", "serve_worker"]

log = structlog.get_logger(__name__)

_SCRAPES_AT_ONCE = 16
_DATE_EVERY_S = 1.0
"""How often uvicorn writes the header `Date` anew."""
KEPT = 64
"""Descriptors reserved for the portal's database, files and outgoing calls."""


def run(main: Callable[[asyncio.Event], Coroutine[Any, Any, None]]) -> None:
    """Run `main` on uvloop. SIGINT and SIGTERM set the event passed to it; a second signal exits at once."""
    import uvloop

    async def until_signalled() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()

        def on_signal() -> None:
            stop.set()
            for name in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(name)

        for name in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(name, on_signal)
        await main(stop)

    with contextlib.suppress(KeyboardInterrupt):
        uvloop.run(until_signalled())


async def serve_realtime(
    settings: ServerSettings,
    stop: asyncio.Event,
    started: Callable[[int], None],
    *,
    worker_command: list[str],
    show_frames: Callable[[str], None] | None = None,
) -> None:
    """Serve the realtime server alone, with the configured number of workers. Raises PortTaken, WorkersFailed."""
    from smartlink.server.run.machine import Machine

    with (
        server_errors(),
        take_port(settings.reverb_server_host, settings.reverb_server_port, "REVERB_SERVER_PORT"),
    ):
        machine = Machine(settings, worker_command, show_frames)
        await machine.start()
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, machine.reload)
    started(machine.port)
    try:
        await stop.wait()
    finally:
        await machine.stop()


async def serve_portal(settings: PortalSettings, stop: asyncio.Event, started: Callable[[int], None]) -> None:
    """Serve the API and the pages alone. Raises PortTaken."""
    from smartlink.portal.main import build

    listener = _listen(settings.app_host, settings.app_port)
    portal = build(settings)
    await portal.start()
    try:
        async with _observed(portal, settings.app_metrics_port, "APP_METRICS_PORT"):
            await _serve_http(portal, listener, raise_descriptor_limit() - KEPT, stop, started)
    finally:
        await portal.stop()


async def serve_worker(settings: PortalSettings, stop: asyncio.Event, options: WorkerOptions) -> None:
    """Run the worker alone. Raises DatabaseAway if the database cannot be reached at the start, and PortTaken."""
    from smartlink.portal.main import build

    portal = build(settings)
    await portal.start()
    try:
        async with _observed(portal, settings.worker_metrics_port, "WORKER_METRICS_PORT"):
            await portal.work(stop, options)
    finally:
        await portal.stop()


async def serve_all(
    server_settings: ServerSettings,
    portal_settings: PortalSettings,
    stop: asyncio.Event,
    started: Callable[[int, int], None],
) -> None:
    """Serve everything in this process; its parts still talk over sockets. Raises PortTaken."""
    from smartlink.portal.main import build as build_portal
    from smartlink.server.observe.operators import Operators
    from smartlink.server.run.bootstrap import build as build_server
    from smartlink.server.run.bootstrap import endpoint_for
    from smartlink.server.run.control import listen_for_operators

    listener = _listen(portal_settings.app_host, portal_settings.app_port)
    app_port = listener.getsockname()[1]
    if server_settings.reverb_webhook_url is None:
        own_portal = netloc(_reachable(portal_settings.app_host), app_port)
        update: dict[str, Any] = {
            "reverb_webhook_url": f"http://{own_portal}/webhooks/realtime",
            "reverb_webhook_allowed_hosts": (*server_settings.reverb_webhook_allowed_hosts, own_portal),
        }
        # The portal needs only these. Strangers can trigger any number of the others, so they are opt-in.
        if not server_settings.model_fields_set & {"reverb_webhook_events", "reverb_webhook_channel_prefixes"}:
            update["reverb_webhook_events"] = ("member_added", "member_removed", "event_delivered")
            update["reverb_webhook_channel_prefixes"] = ("presence-", "private-user.", "private-chat.")
        server_settings = server_settings.model_copy(update=update)
    descriptors = raise_descriptor_limit() - KEPT
    # The portal gets up to a quarter: its requests are short, while the sockets of its pages stay open.
    for_portal = min(portal_settings.app_max_connections, descriptors // 4)
    with server_errors():
        server = build_server(server_settings, descriptors=descriptors - for_portal)
    operators = Operators(server.agent, server.rates.figures)
    observed = endpoint_for(server_settings, lambda: server.port, server.rates.figures, operators)
    with take_port(server_settings.reverb_metrics_host, observed.port, "REVERB_METRICS_PORT"):
        await observed.start()
    with (
        server_errors(),
        take_port(server_settings.reverb_server_host, server_settings.reverb_server_port, "REVERB_SERVER_PORT"),
    ):
        await server.start()
    await listen_for_operators(observed, server_settings, server.port)
    operators.start()
    own = {
        "reverb_host": _reachable(server_settings.reverb_server_host),
        "reverb_port": server.port,
        "reverb_scheme": "http" if server_settings.reverb_server_tls_cert is None else "https",
    }
    broadcast = portal_settings.broadcast.model_copy(update=own)
    portal = build_portal(portal_settings.model_copy(update={"broadcast": broadcast}))
    await portal.start()
    stop_work = asyncio.Event()
    work = asyncio.create_task(portal.work(stop_work))
    work.add_done_callback(lambda task: None if task.cancelled() or task.exception() is None else stop.set())
    try:
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, server.reload)
        async with _observed(portal, portal_settings.app_metrics_port, "APP_METRICS_PORT"):
            await _serve_http(portal, listener, for_portal, stop, lambda port: started(port, server.port))
    finally:
        # Stop in this order: no new requests, then send what they recorded, then close the sockets it goes to.
        stop_work.set()
        await asyncio.gather(work, return_exceptions=True)
        await server.stop()
        await operators.stop()
        await observed.stop()
        await portal.stop()
    if not work.cancelled() and (error := work.exception()) is not None:
        raise error


def _quiet(config: uvicorn.Config, stop: asyncio.Event, started: Callable[[], None] = lambda: None) -> uvicorn.Server:
    """A server that serves until `stop` is set, and leaves signals to us: several services must stop in order."""
    import uvicorn

    class Quiet(uvicorn.Server):
        async def main_loop(self) -> None:
            # Its own looks ten times a second whether it should stop.
            while not (stop.is_set() or await self.on_tick(0)):
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_DATE_EVERY_S):
                        await stop.wait()

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            started()

        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield

    return Quiet(config)


@contextlib.asynccontextmanager
async def _observed(portal: Portal, port: int | None, variable: str) -> AsyncIterator[None]:
    """Serve the portal's metrics within this block, if a port is set for them. Raises PortTaken."""
    if port is None:
        yield
        return
    import uvicorn

    listener = _listen(portal.settings.app_metrics_host, port, variable)
    config = uvicorn.Config(
        portal.observer.app, ws="none", lifespan="off", log_config=None, access_log=False, server_header=False,
        limit_concurrency=_SCRAPES_AT_ONCE, timeout_keep_alive=5, timeout_graceful_shutdown=2,
    )  # fmt: skip
    stop = asyncio.Event()
    serving = asyncio.create_task(_quiet(config, stop).serve(sockets=[listener]))
    host = netloc(portal.settings.app_metrics_host, listener.getsockname()[1])
    log.info("metrics listening", address=host)
    try:
        yield
    finally:
        stop.set()
        await serving


def _reachable(host: str) -> str:
    """Return the address at which this machine reaches a listener bound to `host`."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)  # noqa: S104 — compared, not bound


def _listen(host: str, port: int, variable: str = "APP_PORT") -> socket.socket:
    with take_port(host, port, variable):
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(1_024)
        except OSError:
            listener.close()
            raise
        listener.setblocking(False)
        return listener


async def _serve_http(
    portal: Portal, listener: socket.socket, descriptors: int, stop: asyncio.Event, started: Callable[[int], None]
) -> None:
    import uvicorn

    from smartlink.portal.listener import Bounds, ConnectionSlots, protocol
    from smartlink.proxies import TrustedProxies

    port = listener.getsockname()[1]
    own = portal.settings
    bounds = Bounds(
        connections=max(min(own.app_max_connections, descriptors), 1),
        per_address=own.app_max_connections_per_address,
        head_s=own.app_head_seconds,
        body_s=own.app_body_seconds,
        proxies=TrustedProxies(own.trusted),
    )

    config = uvicorn.Config(
        portal.app,
        http=protocol(ConnectionSlots(bounds)),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=5,
        proxy_headers=False,
    )
    await _quiet(config, stop, lambda: started(port)).serve(sockets=[listener])
