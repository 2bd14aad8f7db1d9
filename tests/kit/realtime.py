"""A realtime server on a free port, in the test's own event loop."""

from __future__ import annotations

import ssl
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx2

from kit.waiting import LIMIT_S
from smartlink.protocol.signing import signed_query
from smartlink.server.apps.base import App, AppManager
from smartlink.server.apps.static import StaticApps
from smartlink.server.run.bootstrap import build
from smartlink.server.run.engines import Engines
from smartlink.server.run.lifecycle import RealtimeServer
from smartlink.server.settings.config import ServerSettings

APP_ID, KEY, SECRET = "1001", "app-key", "app-secret"


def an_app(**fields: Any) -> App:
    """The application that the tests' clients and publishers use, with `fields` as `App` has them."""
    return App(id=APP_ID, key=KEY, secret=SECRET, **fields)


@asynccontextmanager
async def realtime_server(
    apps: AppManager | App | None = None, *others: App, engines: Engines | None = None, **settings: Any
) -> AsyncIterator[RealtimeServer]:
    """Start a server with `settings` (names of ServerSettings), or for `apps`, and stop it at the end."""
    values = {
        "reverb_server_port": 0,
        "reverb_server_drain_seconds": 0.2,
        "reverb_webhook_queue": None if settings.get("reverb_scaling_enabled") else "memory",
        "reverb_webhook_allow_private": True,
    } | settings
    manager = StaticApps([apps, *others]) if isinstance(apps, App) else apps
    server = build(ServerSettings(_env_file=None, **values), manager, engines)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


async def call(
    port: int,
    method: str,
    path: str,
    body: bytes = b"",
    params: Mapping[str, str] | None = None,
    *,
    key: str = KEY,
    secret: str = SECRET,
    timestamp: int | None = None,
    headers: Mapping[str, str] | None = None,
    tls: ssl.SSLContext | None = None,
) -> httpx2.Response:
    """One signed call of the HTTP API."""
    stamp = int(time.time()) if timestamp is None else timestamp
    query = signed_query(key, secret, method, path, body, timestamp=stamp, params=params)
    scheme = "http" if tls is None else "https"
    async with httpx2.AsyncClient(trust_env=False, timeout=LIMIT_S, verify=tls or False) as client:
        return await client.request(
            method, f"{scheme}://127.0.0.1:{port}{path}?{query}", content=body, headers=dict(headers or {})
        )
