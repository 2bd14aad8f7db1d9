"""The realtime server behind an ASGI application's own port.

realtime = RealtimeApp()
app = FastAPI(lifespan=realtime.lifespan)
app.mount("/", realtime)
"""

from __future__ import annotations

import contextlib
import ipaddress
import multiprocessing
import os
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from smartlink.server.net.requests import HttpError
from smartlink.server.net.sockets import raise_descriptor_limit
from smartlink.server.run.bootstrap import build
from smartlink.server.run.embedded import DRAIN_S, ServerRunsAlready
from smartlink.server.run.lifecycle import RealtimeServer
from smartlink.server.settings.config import ServerSettings, is_safe_secret
from smartlink.server.transports.asgi.bridge import Receive, Scope, Send, bridge_http, bridge_websocket, peer_of
from smartlink.server.transports.asgi.link import ScopeLink

__all__ = ["RealtimeApp"]

ANYWHERE = "0.0.0.0"  # noqa: S104 - nothing is bound to it


class RealtimeApp:
    """An ASGI application that is the whole server: WebSockets, the HTTP API and the HTTP fallback.

    It serves while its `lifespan` runs: pass that to your framework, or serve this object itself. It opens no port;
    settings of ports, Unix sockets and TLS are without effect, and each message costs more than at a port of the
    server's own (docs/howto/embed.md). With REVERB_SERVER_EMBEDDED=false it refuses everything.
    """

    def __init__(self, settings: ServerSettings | None = None) -> None:
        self._settings = settings
        self._server: RealtimeServer | None = None
        self._is_elsewhere = False
        self._is_local = False
        """The secret is a sample: whoever calls from elsewhere is refused."""

    @asynccontextmanager
    async def lifespan(self, app: object = None) -> AsyncIterator[None]:
        """Run the server while the application runs.

        Raises ServerRunsAlready if it runs, and in a second worker of the application unless Redis joins them; and what
        `RealtimeServer.start` raises.
        """
        del app
        settings = self._settings or ServerSettings()
        self._is_elsewhere = not settings.reverb_server_embedded
        if self._is_elsewhere:
            yield
            return
        if self._server is not None:
            raise ServerRunsAlready("This RealtimeApp runs already: give its lifespan to one application only.")
        if "reverb_server_drain_seconds" not in settings.model_fields_set:
            settings = settings.model_copy(update={"reverb_server_drain_seconds": DRAIN_S})
        # Where the ASGI server listens is not known: assume the worst of secrets that cannot be checked here.
        self._is_local = settings.has_own_app and not is_safe_secret(settings.reverb_app_secret, ANYWHERE)
        if not self._is_local:
            settings = settings.model_copy(update={"reverb_server_host": ANYWHERE})
        with contextlib.nullcontext() if settings.reverb_scaling_enabled else _only_worker(settings.reverb_app_id):
            server = build(settings, descriptors=raise_descriptor_limit() // 2)
            await server.start([])
            self._server = server
            try:
                yield
            finally:
                self._server = None
                await server.stop()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one scope. Raises RuntimeError if the lifespan does not run."""
        kind = scope["type"]
        if kind == "lifespan":
            await self._live(receive, send)
            return
        if self._is_elsewhere:
            await _refuse(kind, HttpError(404, "The realtime server has a process of its own"), send)
            return
        server = self._server
        if server is None:
            raise RuntimeError("RealtimeApp does not run: FastAPI(lifespan=realtime.lifespan)")
        link = ScopeLink(peer_of(scope))
        with server.attached(link) as has_room:
            try:
                if self._is_local and _is_remote(link.peer):
                    raise HttpError(403, "The server's secret is a sample: it serves its own machine only")
                if not has_room:
                    raise HttpError(503, "Too many connections", {"Retry-After": "1"})
                if kind == "websocket":
                    await bridge_websocket(link, scope, receive, send)
                else:
                    await bridge_http(link, scope, receive, send, server.settings.reverb_max_request_size)
            except HttpError as error:
                await _refuse(kind, error, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        """Serve the lifespan, when this object is the application itself."""
        await receive()
        try:
            async with self.lifespan():
                await send({"type": "lifespan.startup.complete"})
                await receive()
        except Exception as error:
            if self._server is None:
                await send({"type": "lifespan.startup.failed", "message": str(error)})
            raise
        await send({"type": "lifespan.shutdown.complete"})


def _is_remote(peer: str) -> bool:
    """Whether a peer is at another machine's address; test clients and Unix sockets have none."""
    try:
        address = ipaddress.ip_address(peer)
    except ValueError:
        return False
    return not (getattr(address, "ipv4_mapped", None) or address).is_loopback


@contextmanager
def _only_worker(app_id: str) -> Iterator[None]:
    """Hold a name that workers of one application share. Raises ServerRunsAlready in the second of them.

    Each would be a server of its own, and an event reach only the clients of one. Abstract names exist on Linux only.
    """
    is_worker = multiprocessing.parent_process() is not None or "gunicorn.app.base" in sys.modules
    if sys.platform != "linux" or not is_worker:
        yield
        return
    with socket.socket(socket.AF_UNIX) as name:
        try:
            name.bind(f"\0smartlink-realtime-{os.getppid()}-{app_id}")
        except OSError:
            raise ServerRunsAlready(
                "Another worker of this application runs a realtime server that knows nothing of this one's clients. "
                "Run one worker, join them by Redis (REVERB_SCALING_ENABLED=true), or run smartlink reverb start and "
                "set REVERB_SERVER_EMBEDDED=false."
            ) from None
        yield


async def _refuse(kind: str, error: HttpError, send: Send) -> None:
    if kind == "websocket":
        await send({"type": "websocket.close", "code": 1013, "reason": str(error)})
        return
    response = error.response()
    headers = [(b"content-type", b"application/json")]
    headers += [(name.lower().encode(), value.encode()) for name, value in response.headers.items()]
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    await send({"type": "http.response.body", "body": response.body})
