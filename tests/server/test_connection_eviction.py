"""Unauthorized connections are evicted to make room for publishers and clients."""

from __future__ import annotations

import asyncio
import resource
import ssl
import time
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from kit.client import Client, connected, raw
from kit.engines import Between
from kit.realtime import KEY, SECRET, call, realtime_server
from kit.waiting import eventually
from smartlink.protocol.signing import signed_query

PLACES = 20
EVENT = b'{"name":"e","channel":"room","data":""}'


@pytest.fixture
def _few_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    """`PLACES` connections fit, five of them only for the HTTP API."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (64 + PLACES, 64 + PLACES))


async def ask(client: Client, path: str = "/up") -> int:
    """The status of an answer, after which the connection stays."""
    client.writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    async with asyncio.timeout(10):
        head = await client.reader.readuntil(b"\r\n\r\n")
        await client.reader.readexactly(int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0]))
    return int(head.split()[1])


async def ask_signed(client: Client) -> int:
    path = "/apps/1001/channels"
    return await ask(client, f"{path}?{signed_query(KEY, SECRET, 'GET', path, b'', timestamp=int(time.time()))}")


async def is_ended(client: Client) -> bool:
    async with asyncio.timeout(10):
        return await client.reader.read() == b""


@pytest.mark.usefixtures("_few_descriptors")
@pytest.mark.parametrize("has_asked", [False, True], ids=["silent", "kept alive"])
async def test_publishers_are_served_however_many_connections_are_open(has_asked: bool) -> None:
    async with realtime_server() as server, AsyncExitStack() as stack:
        idle = []
        for _ in range(2 * PLACES):
            client = await stack.enter_async_context(raw(server.port))
            if has_asked:
                assert await ask(client) == 200
            idle.append(client)
        answer = await call(server.port, "POST", "/apps/1001/events", EVENT)

        assert answer.status_code == 200
        assert await is_ended(idle[0])
        assert await ask(idle[-1]) == 200


@pytest.mark.usefixtures("_few_descriptors")
async def test_a_connection_with_a_signed_call_is_not_evicted() -> None:
    async with realtime_server() as server, raw(server.port) as publisher, AsyncExitStack() as stack:
        assert await ask_signed(publisher) == 200
        for _ in range(3 * PLACES):
            await stack.enter_async_context(raw(server.port))
        await eventually(lambda: len(server._capacity) == PLACES)

        assert await ask_signed(publisher) == 200


@pytest.mark.usefixtures("_few_descriptors")
async def test_a_call_in_progress_is_not_evicted() -> None:
    between = Between()
    async with realtime_server(engines=between.engines()) as server, AsyncExitStack() as stack:
        between.reading.shut()
        waiting = await stack.enter_async_context(raw(server.port))
        asking = asyncio.ensure_future(ask_signed_for_count(waiting))
        await eventually(lambda: between.reading.waiting)
        for _ in range(2 * PLACES):
            await stack.enter_async_context(raw(server.port))
        await eventually(lambda: len(server._capacity) == PLACES)
        between.reading.open()

        assert await asking == 200


async def ask_signed_for_count(client: Client) -> int:
    path = "/apps/1001/channels/room"
    return await ask(client, f"{path}?{signed_query(KEY, SECRET, 'GET', path, b'', timestamp=int(time.time()))}")


async def test_unauthorized_connections_are_limited_and_clients_stay() -> None:
    async with realtime_server(reverb_server_max_http_connections=5) as server, connected(server.port) as client:
        async with AsyncExitStack() as stack:
            idle = [await stack.enter_async_context(raw(server.port)) for _ in range(20)]
            assert [await is_ended(each) for each in idle[:15]] == [True] * 15
            assert len(server._capacity.evictable) == 5
        assert await client.is_quiet()


@pytest.mark.usefixtures("_few_descriptors")
async def test_stalled_handshakes_are_evicted(certificate: tuple[Path, Path]) -> None:
    cert, key = map(str, certificate)
    context = ssl.create_default_context(cafile=cert)
    async with realtime_server(reverb_server_tls_cert=cert, reverb_server_tls_key=key) as server:
        async with AsyncExitStack() as stack:
            begun = [await stack.enter_async_context(raw(server.port)) for _ in range(2 * PLACES)]
            await eventually(lambda: len(server._capacity) == PLACES)
            answer = await call(server.port, "POST", "/apps/1001/events", EVENT, tls=context)

            assert answer.status_code == 200
            assert await is_ended(begun[0])
        await eventually(lambda: not len(server._capacity))
        assert not server._capacity.evictable


async def test_a_handshake_has_a_deadline(certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smartlink.server.net.listener.HANDSHAKE_S", 0.1)
    cert, key = map(str, certificate)
    async with (
        realtime_server(reverb_server_tls_cert=cert, reverb_server_tls_key=key) as server,
        raw(server.port) as client,
    ):
        assert await is_ended(client)
        assert not len(server._capacity)


async def test_a_stop_does_not_wait_for_handshakes(certificate: tuple[Path, Path]) -> None:
    cert, key = map(str, certificate)
    async with AsyncExitStack() as stack:
        async with realtime_server(reverb_server_tls_cert=cert, reverb_server_tls_key=key) as server:
            client = await stack.enter_async_context(raw(server.port))
            await eventually(lambda: server._capacity.handshakes)

        assert await is_ended(client)
