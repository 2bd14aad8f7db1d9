"""`Broadcasting(embedded=True)`: the front door brings the realtime server along."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from flask import Flask

from broadcasting.front_door import settings_for
from kit import processes
from kit.client import connected
from kit.ports import free_port
from kit.redis import RedisServer, fresh_prefix
from kit.subscribers import a_client, taken
from kit.waiting import LIMIT_S, eventually
from smartlink.broadcasting import BroadcastConfigError, Broadcasting, BroadcastNow, BroadcastSettings, Channel
from smartlink.server.run.embedded import ServerRunsAlready, embedded_server
from smartlink.server.settings.config import ServerSettings

APPLICATION = """
from fastapi import FastAPI
from smartlink.broadcasting import Broadcasting, BroadcastNow, Channel

broadcasting = Broadcasting.from_env(embedded=True)


class Said(BroadcastNow):
    text: str
    channel = Channel("chat")


app = FastAPI(lifespan=broadcasting.lifespan)
broadcasting.install(app)


@app.post("/say")
async def say(text: str) -> bool:
    return await broadcasting.send_now(Said(text))
"""


class Said(BroadcastNow):
    text: str
    channel = Channel("chat")


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def embedding(**given: Any) -> Broadcasting:
    return Broadcasting(BroadcastSettings(_env_file=None, **given), embedded=True)


async def test_its_own_server_gets_what_it_sends_on_any_port() -> None:
    broadcasting = embedding(reverb_server_port=0)

    for _ in range(2):  # an application's tests start it again and again
        async with broadcasting.lifespan():
            async with a_client(broadcasting.settings.reverb_port) as client:
                stream = (await client.subscribe("chat")).events(Said)
                assert await broadcasting.send_now(Said("now"))
                assert await asyncio.to_thread(broadcasting.send_now_sync, Said("in a thread"))

                assert await taken(stream, 2) == [Said("now"), Said("in a thread")]


async def test_it_has_the_librarys_port_and_credentials() -> None:
    port = free_port()
    secret = "x" * 20
    broadcasting = embedding(reverb_port=port, reverb_app_key="key", reverb_app_id="7", reverb_app_secret=secret)

    async with broadcasting.lifespan():
        async with connected(port, key="key") as client:
            await client.subscribe("chat")
            assert await broadcasting.send_now(Said("hello"))
            await client.expect("App\\Events\\Said")
    with pytest.raises(OSError):
        await asyncio.open_connection("127.0.0.1", port)


@pytest.mark.parametrize("elsewhere", [{"reverb_server_embedded": False}, {"driver": "log"}])
async def test_one_setting_moves_it_out(elsewhere: dict[str, Any]) -> None:
    port = free_port()

    async with embedding(reverb_server_port=port, **elsewhere).lifespan():
        with pytest.raises(OSError):
            await asyncio.open_connection("127.0.0.1", port)


async def test_embedding_twice_is_refused() -> None:
    broadcasting = embedding(reverb_server_port=0)
    async with broadcasting.lifespan():
        port = broadcasting.settings.reverb_port
        with pytest.raises(ServerRunsAlready, match=r"embeds the realtime server on port \d+ already"):
            async with embedding(reverb_server_port=port).lifespan():
                pass
        with pytest.raises(ServerRunsAlready, match="Embed it once"):
            async with embedded_server(ServerSettings(_env_file=None, reverb_server_port=port)):
                pass
        assert await broadcasting.send_now(Said("the first one serves on"))


async def test_a_port_in_use_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    async with await asyncio.start_server(lambda *_: None, "127.0.0.1", 0) as other:
        port = other.sockets[0].getsockname()[1]
        with pytest.raises(ServerRunsAlready, match=f"Port {port} is in use"):
            async with embedding(reverb_server_port=port).lifespan():
                pass


async def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "smartlink.server.run.embedded", None)

    with pytest.raises(BroadcastConfigError, match=r"pip install 'smartlink-realtime\[server,broadcasting\]'"):
        async with embedding(reverb_server_port=0).lifespan():
            pass
    async with embedding(reverb_server_embedded=False).lifespan():
        pass  # moved out, it needs none


def test_flask_cannot_embed_it() -> None:
    with pytest.raises(BroadcastConfigError, match="smartlink reverb start"):
        embedding().install(Flask("shop"))


async def test_a_lifespan_that_was_forgotten_is_mentioned_once(caplog: pytest.LogCaptureFixture) -> None:
    broadcasting = Broadcasting(settings_for(free_port()), embedded=True)
    broadcasting.install(FastAPI())

    with caplog.at_level(logging.WARNING, "smartlink.broadcasting"):
        for _ in range(2):
            assert not await broadcasting.send_now(Said("lost"))

    assert [line for line in caplog.messages if "lifespan=broadcasting.lifespan" in line] == [
        "the embedded server does not run: use FastAPI(lifespan=broadcasting.lifespan)"
    ]


async def workers(folder: Path, port: int, **environment: str) -> asyncio.subprocess.Process:
    """The application, served by two workers of uvicorn."""
    (folder / "main.py").write_text(APPLICATION)
    command = (sys.executable, "-m", "uvicorn", "main:app", "--port", str(port), "--workers", "2")
    own = {k: v for k, v in os.environ.items() if not k.startswith(("REVERB_", "REDIS_"))} | environment
    return await processes.spawn(
        *command, cwd=folder, env=own, stderr=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.DEVNULL
    )


async def test_workers_without_redis_say_so_at_the_start_and_end(tmp_path: Path) -> None:
    process = await workers(tmp_path, free_port(), REVERB_SERVER_PORT=str(free_port()))

    async with asyncio.timeout(LIMIT_S):
        _, said = await process.communicate()

    assert b"another worker of this application" in said
    assert b"REVERB_SERVER_EMBEDDED=false" in said


async def test_workers_joined_by_redis_serve_together(tmp_path: Path, shared_redis: RedisServer) -> None:
    port, own = free_port(), free_port()
    joined = {"REVERB_SCALING_ENABLED": "true", "REDIS_URL": shared_redis.url, "REVERB_SCALING_CHANNEL": fresh_prefix()}
    process = await workers(tmp_path, own, REVERB_SERVER_PORT=str(port), **joined)
    assert process.stderr is not None
    async with asyncio.timeout(LIMIT_S):
        for _ in range(2):
            while b"Application startup complete" not in await process.stderr.readline():
                assert process.returncode is None
    drained = asyncio.create_task(process.stderr.read())

    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{own}", trust_env=False, timeout=LIMIT_S) as http:
        async with AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(a_client(port)) for _ in range(8)]  # spread over both
            streams = [(await client.subscribe("chat")).events(Said) for client in clients]
            assert (await http.post("/say", params={"text": "hello"})).json() is True
            for stream in streams:
                assert await taken(stream, 1) == [Said("hello")]
    process.terminate()
    await drained
    await eventually(lambda: process.returncode is not None)
