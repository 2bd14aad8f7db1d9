"""An ASGI application behind the portal's listener, in the test's own event loop."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn

from kit.waiting import eventually
from smartlink.portal.listener import Bounds, ConnectionSlots, protocol

__all__ = ["listening"]


@asynccontextmanager
async def listening(application: Any, bounds: Bounds) -> AsyncIterator[tuple[int, uvicorn.Server]]:
    """Serve `application` on a free port, and stop at the end; the port and the server."""
    sock = socket.create_server(("127.0.0.1", 0))
    sock.setblocking(False)
    config = uvicorn.Config(
        application, http=protocol(ConnectionSlots(bounds)), ws="none", lifespan="off", log_config=None,
        timeout_graceful_shutdown=1,
    )  # fmt: skip
    server = uvicorn.Server(config)
    server.capture_signals = contextlib.nullcontext  # type: ignore[assignment,method-assign] # pytest's stay
    running = asyncio.create_task(server.serve(sockets=[sock]))
    await eventually(lambda: server.started)
    yield sock.getsockname()[1], server
    server.should_exit = True
    await running
