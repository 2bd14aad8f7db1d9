"""ASGI applications, called without a server."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

__all__ = ["connect_websocket"]


async def connect_websocket(app: Callable[..., Awaitable[None]]) -> list[Any]:
    """What `app` says to a WebSocket that wants to connect."""
    said: list[Any] = []

    async def send(message: Any) -> None:
        said.append(message)

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    await app({"type": "websocket", "path": "/broadcasting/auth", "headers": []}, receive, send)
    return said
