"""Over TLS, a Unix socket, a proxy, a path, with headers."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest
from websockets.asyncio.server import ServerConnection

from kit.deployment import certificate
from kit.realtime import KEY, realtime_server
from kit.scripted import Scripted, established, scripted
from kit.subscribers import QUICK, a_client
from kit.tcp import Listener
from kit.waiting import eventually
from smartlink.client import Client, ConnectionRefused


async def test_over_tls_and_only_with_a_trusted_certificate(tmp_path: Path) -> None:
    cert, key = map(str, certificate(tmp_path))
    trusting = ssl.create_default_context(cafile=cert)
    async with realtime_server(reverb_server_tls_cert=cert, reverb_server_tls_key=key) as server:
        url = f"wss://127.0.0.1:{server.port}"
        async with Client(url, KEY, tls=trusting, proxy=None) as client:
            await client.subscribe("chat")
        async with Client(url, KEY, proxy=None) as client:
            with pytest.raises(ConnectionRefused, match="certificate is not trusted"):
                await client.connected()


async def test_over_a_unix_socket(tmp_path: Path) -> None:
    path = str(tmp_path / "ws.sock")
    async with realtime_server(reverb_server_unix_socket=path):
        async with Client("ws://localhost", KEY, unix_socket=path) as client:
            await client.subscribe("chat")


async def test_below_a_path_and_with_http_for_ws() -> None:
    async with realtime_server(reverb_server_path="/realtime") as server:
        async with Client(f"http://127.0.0.1:{server.port}/realtime/", KEY, proxy=None) as client:
            await client.subscribe("chat")


async def test_through_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        asked.append(head)
        host, _, port = head.split()[1].partition(":")
        there_reader, there_writer = await asyncio.open_connection(host, int(port))
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        pumps = [asyncio.create_task(_pump(reader, there_writer)), asyncio.create_task(_pump(there_reader, writer))]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            there_writer.transport.abort()

    listener = Listener(proxy)
    await listener.start()
    async with realtime_server() as server:
        url, there = f"ws://127.0.0.1:{server.port}", f"http://ana:word@127.0.0.1:{listener.port}"
        async with Client(url, KEY, proxy=there) as client:
            await client.subscribe("chat")
        monkeypatch.setenv("http_proxy", there)
        monkeypatch.setenv("no_proxy", "")
        async with Client(url, KEY) as client:
            await client.subscribe("chat")
    await listener.stop()

    assert len(asked) == 2
    assert all(head.startswith("CONNECT 127.0.0.1:") and "Proxy-Authorization: Basic" in head for head in asked)


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    while data := await source.read(65_536):
        sink.write(data)
        await sink.drain()


async def test_the_handshake_says_who_asks() -> None:
    heads: list[str] = []

    async def play(_: Scripted, socket: ServerConnection) -> None:
        assert socket.request is not None
        heads.append(f"{socket.request.path}\n{socket.request.headers}")
        await socket.send(established())
        await socket.wait_closed()

    async with scripted(play) as server, a_client(server.port, headers={"X-Tenant": "acme"}) as client:
        await client.connected()

    assert "protocol=7&client=smartlink-python&version=" in heads[0]
    assert "X-Tenant: acme" in heads[0]
    assert "User-Agent: smartlink-python/" in heads[0]


async def test_a_proxy_that_refuses_is_asked_again() -> None:
    asked = 0

    async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        asked += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 407 No\r\ncontent-length: 0\r\n\r\n")
        await writer.drain()

    listener = Listener(proxy)
    await listener.start()
    async with Client("ws://127.0.0.1:9", KEY, proxy=f"http://127.0.0.1:{listener.port}", reconnect_s=QUICK):
        await eventually(lambda: asked > 1)
    await listener.stop()
