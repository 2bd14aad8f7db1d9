"""The server inside an application's own process."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest
import uvicorn
from fastapi import FastAPI

from kit.ports import free_port
from kit.subscribers import a_client, taken
from kit.waiting import LIMIT_S, eventually
from smartlink.broadcasting import Broadcasting, BroadcastNow, BroadcastSettings, Channel
from smartlink.server.run.embedded import ServerRunsAlready, embedded, embedded_server
from smartlink.server.settings.config import ServerSettings


class Said(BroadcastNow):
    text: str
    channel = Channel("chat")


def settings(**values: Any) -> ServerSettings:
    given = {"reverb_server_port": 0, "reverb_webhook_queue": "memory"} | values
    return ServerSettings(_env_file=None, **given)


@asynccontextmanager
async def served(app: FastAPI) -> AsyncIterator[int]:
    """Serve an application with uvicorn; its port."""
    sock = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, lifespan="on", log_config=None, timeout_graceful_shutdown=1))
    server.capture_signals = contextlib.nullcontext  # type: ignore[assignment,method-assign] # pytest's stay
    running = asyncio.create_task(server.serve(sockets=[sock]))
    await eventually(lambda: server.started or running.done())
    yield sock.getsockname()[1]
    server.should_exit = True
    await running


async def test_an_application_brings_its_server_along(monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    monkeypatch.setenv("REVERB_SERVER_PORT", str(port))
    monkeypatch.setenv("REVERB_WEBHOOK_QUEUE", "memory")
    broadcasting = Broadcasting(BroadcastSettings(_env_file=None))

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with embedded(app), broadcasting.lifespan():
            yield

    app = FastAPI(lifespan=lifespan)

    @app.post("/say")
    async def say(text: str) -> bool:
        return await broadcasting.send_now(Said(text))

    async with served(app) as own:
        async with a_client(port) as client, httpx2.AsyncClient(trust_env=False, timeout=LIMIT_S) as http:
            stream = (await client.subscribe("chat")).events(Said)
            answer = await http.post(f"http://127.0.0.1:{own}/say", params={"text": "hello"})

            assert answer.json() is True
            assert await taken(stream, 1) == [Said("hello")]
    with pytest.raises(OSError):
        await asyncio.open_connection("127.0.0.1", port)


async def test_it_is_a_lifespan_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    monkeypatch.setenv("REVERB_SERVER_PORT", str(port))
    monkeypatch.setenv("REVERB_WEBHOOK_QUEUE", "memory")

    async with served(FastAPI(lifespan=embedded)), a_client(port) as client:
        await client.subscribe("chat")


async def test_a_second_one_says_what_to_do() -> None:
    async with embedded_server(settings()) as first:
        assert first is not None
        with pytest.raises(ServerRunsAlready, match="Embed it once"):
            async with embedded_server(settings(reverb_server_port=first.port)):
                pass
        async with a_client(first.port) as client:
            await client.subscribe("chat")


async def test_one_setting_moves_it_out() -> None:
    async with embedded_server(settings(reverb_server_embedded=False)) as server:
        assert server is None


async def test_it_stops_at_once_unless_told_otherwise() -> None:
    async with (
        embedded_server(settings()) as quick,
        embedded_server(settings(reverb_server_drain_seconds=2)) as slow,
    ):
        assert quick is not None
        assert slow is not None
        assert quick.settings.reverb_server_drain_seconds == 0.5
        assert slow.settings.reverb_server_drain_seconds == 2
