"""The portal's listener: deadlines, limits, and the responses beyond them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest
import uvicorn

from kit import listening as kit
from kit.waiting import eventually
from smartlink.portal.listener import Bounds, ConnectionSlots
from smartlink.proxies import TrustedProxies

SHORT = {"head_s": 0.3, "body_s": 0.3}
LONG = {"head_s": 60.0, "body_s": 60.0}


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Says how long the body is; `/large` is more than any buffer holds."""
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        size, more = size + len(message["body"]), message["more_body"]
    body = b"x" * 50_000_000 if scope["path"] == "/large" else str(size).encode()
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class Listener:
    def __init__(self, port: int, server: uvicorn.Server) -> None:
        self.port = port
        self.server = server

    @property
    def connections(self) -> int:
        return len(self.server.server_state.connections)

    async def open(self, sent: bytes = b"") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(sent)
        return reader, writer

    async def get(self, path: str) -> httpx2.Response:
        async with httpx2.AsyncClient(verify=False, timeout=20) as client:
            return await client.get(f"http://127.0.0.1:{self.port}{path}")


@asynccontextmanager
async def listening(**bounds: Any) -> AsyncIterator[Listener]:
    async with kit.listening(application, Bounds(**bounds)) as (port, server):
        yield Listener(port, server)


HEAD = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n"
STALLED = {
    "half a request line": (b"POST / HT", b"408"),
    "half a head": (HEAD, b"408"),
    "no body": (HEAD + b"\r\n", b"408"),
    "half a body": (HEAD + b"\r\nab", b"408"),
    "half a chunk": (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab", b"408"),
    "nothing": (b"", b""),
    "nothing but empty lines": (b"\r\n\r\n", b""),
}


@pytest.mark.parametrize("what", STALLED)
async def test_an_incomplete_request_gets_408_and_is_closed(what: str) -> None:
    sent, status = STALLED[what]
    async with listening(**SHORT) as listener:
        reader, writer = await listener.open(sent)
        heard = await asyncio.wait_for(reader.read(), 20)
        writer.close()

    if what != "nothing but empty lines":
        assert heard.split(b" ")[1:2] == ([status] if status else [])


async def test_a_slow_body_ends_at_its_deadline() -> None:
    async with listening(head_s=60, body_s=0.5) as listener:
        reader, writer = await listener.open(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 50000\r\n\r\n")
        answer = asyncio.create_task(reader.read())
        while not answer.done():
            writer.write(b"x")
            await asyncio.sleep(0.02)

        assert (await answer).startswith(b"HTTP/1.1 408 ")
        writer.close()


async def test_an_incomplete_second_request_is_closed_too() -> None:
    async with listening(**SHORT) as listener:
        reader, writer = await listener.open(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n0")
        writer.write(b"GET / HT")

        assert (await asyncio.wait_for(reader.read(), 20)).startswith(b"HTTP/1.1 408 ")
        writer.close()


async def test_a_client_that_reads_no_response_is_closed() -> None:
    async with listening(**SHORT) as listener:
        _, writer = await listener.open(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
        await eventually(lambda: listener.connections == 1)
        await eventually(lambda: listener.connections == 0)
        writer.close()


async def test_an_endless_head_is_431() -> None:
    async with listening(**LONG) as listener:
        reader, writer = await listener.open(b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X-More: yes\r\n" * 7_000)

        assert (await asyncio.wait_for(reader.read(), 20)).startswith(b"HTTP/1.1 431 ")
        writer.close()


async def test_requests_in_time_are_answered() -> None:
    async with listening(**LONG) as listener:
        reader, writer = await listener.open(HEAD + b"\r\nabcde" + b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        first = await reader.readuntil(b"\r\n\r\n5")
        second = await reader.readuntil(b"\r\n\r\n0")
        writer.close()

        assert first.startswith(b"HTTP/1.1 200 ")
        assert second.startswith(b"HTTP/1.1 200 ")


async def test_only_idle_connections_are_evicted(caplog: pytest.LogCaptureFixture) -> None:
    async with listening(connections=8, **LONG) as listener:
        busy = [await listener.open(HEAD + b"\r\n") for _ in range(6)]
        await eventually(lambda: listener.connections == 6)
        silent = [await listener.open() for _ in range(2)]
        await eventually(lambda: listener.connections == 8)

        with caplog.at_level(logging.ERROR):
            # Only the reserve is left: for health checks and webhooks.
            assert (await listener.get("/up")).status_code == 200
            refused = await listener.get("/")

        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert await asyncio.wait_for(silent[0][0].read(), 20) == b""
        assert [record.message for record in caplog.records if "refusing connections" in record.message]
        for reader, writer in busy:
            writer.write(b"abcde")
            assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 200 ")
        for _, writer in [*busy, *silent]:
            writer.close()


async def test_if_all_connections_are_busy_new_ones_get_503() -> None:
    async with listening(connections=4, **LONG) as listener:
        # Of four one place is the reserve's: its request is for a health check.
        busy = [await listener.open(HEAD.replace(b" / ", b" /up ") + b"\r\n") for _ in range(4)]
        await eventually(lambda: listener.connections == 4)
        await eventually(lambda: len(listener.server.server_state.tasks) == 4)

        reader, writer = await listener.open()

        assert (await asyncio.wait_for(reader.read(), 20)).startswith(b"HTTP/1.1 503 ")
        for _, each in [*busy, (reader, writer)]:
            each.close()


@pytest.mark.parametrize("proxies", ["", "127.0.0.1"])
async def test_connections_per_address_are_limited_except_for_proxies(proxies: str) -> None:
    async with listening(per_address=2, proxies=TrustedProxies(filter(None, [proxies])), **LONG) as listener:
        held = [await listener.open() for _ in range(2)]
        await eventually(lambda: listener.connections == 2)

        assert (await listener.get("/")).status_code == (200 if proxies else 503)
        for _, writer in held:
            writer.close()


@pytest.mark.parametrize(("address", "is_limited"), [("203.0.114.9", True), ("127.0.0.1", False), ("10.0.0.7", False)])
def test_by_default_public_addresses_may_have_250_connections(address: str, is_limited: bool) -> None:
    places = ConnectionSlots(Bounds())

    assert places._most_of(address) == (250 if is_limited else float("inf"))
