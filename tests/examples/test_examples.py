"""Each example, run as its reader would: as a process beside a realtime server."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from playwright.async_api import expect

from kit import processes
from kit.chromium import LIMIT_MS, chromium
from kit.client import Client, connected
from kit.ports import free_port
from kit.realtime import realtime_server
from kit.waiting import LIMIT_S
from smartlink.broadcasting import ChannelEncryption
from smartlink.server.run.lifecycle import RealtimeServer

EXAMPLES = Path(__file__).parents[2] / "examples"
MASTER_KEY = base64.b64encode(b"k" * 32).decode()


@pytest.fixture
async def server() -> AsyncIterator[RealtimeServer]:
    async with realtime_server() as running:
        yield running


async def start(name: str, folder: Path, server: RealtimeServer, **more: str) -> asyncio.subprocess.Process:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("REVERB_", "BROADCAST_", "PUSHER_"))}
    environment |= {"REVERB_PORT": str(server.port), "REVERB_SERVER_EMBEDDED": "false", **more}
    return await processes.spawn(
        sys.executable, str(EXAMPLES / name), cwd=folder, env=environment,
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip


@asynccontextmanager
async def running(name: str, folder: Path, server: RealtimeServer, **more: str) -> AsyncIterator[httpx2.AsyncClient]:
    """The example's web application, and a client of it."""
    port = free_port()
    process = await start(name, folder, server, PORT=str(port), **more)
    try:
        async with httpx2.AsyncClient(
            base_url=f"http://127.0.0.1:{port}", verify=False, trust_env=False, timeout=LIMIT_S
        ) as client:
            async with asyncio.timeout(LIMIT_S):
                while True:
                    try:
                        await client.get("/")
                        break
                    except httpx2.ConnectError:
                        assert process.returncode is None, (await process.stderr.read()).decode()  # type: ignore[union-attr]
                        await asyncio.sleep(0.05)
            yield client
    finally:
        if process.returncode is None:
            process.terminate()
        await process.communicate()


async def ask(browser: Client, client: httpx2.AsyncClient, channel: str, token: str) -> httpx2.Response:
    return await client.post(
        "/broadcasting/auth",
        data={"socket_id": browser.socket_id, "channel_name": channel},
        headers={"authorization": token},
    )


async def subscribe_as_allowed(browser: Client, client: httpx2.AsyncClient, channel: str, token: str) -> dict[str, Any]:
    """What Echo does: ask the application, show the server what it said."""
    answer = await ask(browser, client, channel, token)
    assert answer.status_code == 200, answer.text
    said: dict[str, Any] = answer.json()
    browser.send("pusher:subscribe", {"channel": channel, "auth": said["auth"], "channel_data": said["channel_data"]})
    await browser.expect("pusher_internal:subscription_succeeded")
    return said


async def test_the_chat_reaches_all_but_the_sender(tmp_path: Path, server: RealtimeServer) -> None:
    async with (
        running("fastapi_chat.py", tmp_path, server) as client,
        connected(server.port) as ana,
        connected(server.port) as ben,
    ):
        assert f":{server.port}/app/app-key" in (await client.get("/")).text
        for browser in (ana, ben):
            await browser.subscribe("chat")
        await client.post("/messages", json={"text": "hello"}, headers={"x-socket-id": ana.socket_id})

        told = await ben.expect("App\\Events\\MessageSent")
        assert json.loads(told["data"]) == {"text": "hello"}
        assert await ana.is_quiet()


async def test_the_chat_needs_no_other_server(tmp_path: Path, server: RealtimeServer) -> None:
    port = free_port()
    own = {"REVERB_SERVER_EMBEDDED": "true", "REVERB_PORT": str(port), "REVERB_SERVER_PORT": str(port)}
    async with running("fastapi_chat.py", tmp_path, server, **own) as client, connected(port) as ana:
        await ana.subscribe("chat")
        await client.post("/messages", json={"text": "hello"})

        assert json.loads((await ana.expect("App\\Events\\MessageSent"))["data"]) == {"text": "hello"}


@pytest.mark.browser
async def test_a_message_shows_in_two_browsers(tmp_path: Path, server: RealtimeServer) -> None:
    port = free_port()
    own = {"REVERB_SERVER_EMBEDDED": "true", "REVERB_PORT": str(port), "REVERB_SERVER_PORT": str(port)}
    async with running("fastapi_chat.py", tmp_path, server, **own) as client, chromium() as browser:
        ana, ben = [await (await browser.new_context()).new_page() for _ in range(2)]
        for page in (ana, ben):
            async with page.expect_websocket(timeout=LIMIT_MS) as opening:
                await page.goto(str(client.base_url))
            socket = await opening.value
            await socket.wait_for_event("framereceived", lambda text: "subscription_succeeded" in text)
        for page, text in ((ana, "hello"), (ben, "hi")):
            await page.fill("#text", text)
            await page.press("#text", "Enter")
            for shown in (ana, ben):
                await expect(shown.locator("li", has_text=text)).to_have_count(1, timeout=LIMIT_MS)


def test_the_chat_has_no_more_than_fifty_lines() -> None:
    assert len((EXAMPLES / "fastapi_chat.py").read_text().splitlines()) <= 50


@pytest.mark.parametrize("name", ["django_orders.py", "flask_orders.py"])
async def test_an_orders_event_reaches_only_its_owner(tmp_path: Path, server: RealtimeServer, name: str) -> None:
    async with running(name, tmp_path, server) as client, connected(server.port) as owner:
        await subscribe_as_allowed(owner, client, "private-orders.7", "7")
        assert (await ask(owner, client, "private-orders.7", "8")).status_code == 403
        assert (await client.post("/orders/5/ship")).json() == {"shipped": 5}

        told = await owner.expect("App\\Events\\OrderShipped")
        assert json.loads(told["data"]) == {"eventId": 1, "order_id": 5, "owner_id": 7}
        await client.post("/orders/6/ship", headers={"x-socket-id": owner.socket_id})
        assert await owner.is_quiet()


async def test_an_order_in_a_database_is_announced_with_its_event_id(tmp_path: Path, server: RealtimeServer) -> None:
    async with running("fastapi_orders.py", tmp_path, server) as client, connected(server.port) as owner:
        await subscribe_as_allowed(owner, client, "private-orders.7", "7")
        assert (await ask(owner, client, "private-orders.7", "8")).status_code == 403
        assert (await client.post("/orders")).status_code == 401
        order = (await client.post("/orders", headers={"authorization": "7"})).json()["id"]
        assert (await client.post(f"/orders/{order + 1}/ship")).status_code == 404
        assert (await client.post(f"/orders/{order}/ship")).json() == {"shipped": order}

        told = await owner.expect("App\\Events\\OrderShipped")
        assert json.loads(told["data"]) == {"eventId": 1, "order_id": order, "owner_id": 7}
        await client.post(f"/orders/{order}/ship", headers={"x-socket-id": owner.socket_id})
        assert await owner.is_quiet()


async def test_a_custom_driver_works_beside_the_server(tmp_path: Path, server: RealtimeServer) -> None:
    async with connected(server.port) as reader:
        await reader.subscribe("news")
        process = await start("custom_driver.py", tmp_path, server)
        _, complaint = await process.communicate()

        assert (process.returncode, complaint) == (0, b"")
        assert json.loads((await reader.expect("news.out"))["data"]) == {"n": 1}
        line = json.loads((tmp_path / "broadcasts.jsonl").read_text())
        assert line == {"channel": "news", "event": "news.out", "data": {"n": 1}}


async def test_only_subscribers_can_read_encrypted_events(tmp_path: Path, server: RealtimeServer) -> None:
    async with (
        running("encrypted_channel.py", tmp_path, server, BROADCAST_ENCRYPTION_MASTER_KEY=MASTER_KEY) as client,
        connected(server.port) as patient,
    ):
        said = await subscribe_as_allowed(patient, client, "private-encrypted-health.7", "7")
        assert (await client.post("/patients/7/results")).status_code == 202

        told = await patient.expect("result.ready")
        encryption = ChannelEncryption(MASTER_KEY)
        assert said["shared_secret"] == encryption.shared_secret("private-encrypted-health.7")
        assert "13.8" not in told["data"]
        assert encryption.open("private-encrypted-health.7", told["data"]) == '{"patient_id":7,"haemoglobin":"13.8"}'
