"""What a request is answered does not depend on how its bytes were split, or on what else is under way."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from kit.client import Client, raw
from kit.engines import Between
from kit.realtime import KEY, SECRET, realtime_server
from kit.waiting import LIMIT_S, eventually
from smartlink.protocol.signing import signed_query
from smartlink.server.run.lifecycle import RealtimeServer

pytestmark = pytest.mark.asyncio(loop_scope="module")

CLOSE = b"Host: x\r\nConnection: close\r\n"


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def server() -> AsyncIterator[RealtimeServer]:
    async with realtime_server() as running:
        yield running
        assert running.metrics.internal_errors == 0


def signed(method: str, path: str, body: bytes = b"", **params: str) -> bytes:
    query = signed_query(KEY, SECRET, method, path, body, timestamp=int(time.time()), params=params)
    return f"{method} {path}?{query} HTTP/1.1\r\nHost: x\r\n".encode()


async def everything(client: Client) -> bytes:
    """What comes until the end of the stream."""
    async with asyncio.timeout(LIMIT_S):
        return await client.reader.read()


def answers(received: bytes) -> list[int]:
    """The status of each answer."""
    return [int(status) for status in re.findall(rb"HTTP/1\.1 ([0-9]{3}) ", received)]


@pytest.mark.parametrize("target", [b"http://x", b"http://x?a=b", b"HTTP://X/", b"/", b"//", b"/?", b"?a"])
async def test_a_url_without_a_path_is_answered(server: RealtimeServer, target: bytes) -> None:
    """RFC 9112, section 3.2.2; 9110, section 4.2.3: an empty path is `/`."""
    async with raw(server.port) as client:
        client.writer.write(b"GET %b HTTP/1.1\r\n%b\r\n" % (target, CLOSE))

        assert answers(await everything(client)) == [400 if target == b"?a" else 404]


BODILESS: dict[str, tuple[bytes, int]] = {
    "of a WebSocket": (b"HEAD /app/app-key HTTP/1.1\r\nHost: x\r\n\r\n", 405),
    "whose body is awaited": (b"HEAD /up HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n", 413),
    "whose body is too large": (b"HEAD /up HTTP/1.1\r\nHost: x\r\nContent-Length: 999999\r\n\r\n", 413),
    "whose chunks are malformed": (b"HEAD /up HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nz\r\n", 400),
}


@pytest.mark.parametrize("name", BODILESS)
async def test_a_refusal_of_head_has_no_body(server: RealtimeServer, name: str) -> None:
    """RFC 9110, section 9.3.2: a proxy would read it as the beginning of another answer."""
    request, status = BODILESS[name]
    async with raw(server.port) as client:
        client.writer.write(request)
        head, _, body = (await everything(client)).partition(b"\r\n\r\n")

    assert answers(head) == [status]
    assert b"\r\nContent-Length: " in head
    assert body == b""


async def test_expect_100_continue_is_answered_behind_earlier_requests(server: RealtimeServer) -> None:
    """RFC 9110, section 10.1.1: the client waits for it, and would time out."""
    body = b'{"name":"e","channel":"chat","data":""}'
    head = signed("POST", "/apps/1001/events", body) + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(body)
    async with raw(server.port) as client, asyncio.timeout(LIMIT_S):
        client.writer.write(b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n" * 20 + head)
        received = await client.reader.readuntil(b" 100 Continue\r\n\r\n")
        assert answers(received) == [404] * 20 + [100]
        client.writer.write(body + b"GET /up HTTP/1.1\r\n%b\r\n" % CLOSE)

        assert answers(await everything(client)) == [200, 200]


@pytest.mark.parametrize("line", [b"GET /up", b"HEAD /up", b"OPTIONS /apps/1001/events", b"OPTIONS /up", b"POST /up"])
@pytest.mark.parametrize(
    ("framing", "body"),
    [(b"Content-Length: 2\r\n", b"{}"), (b"Transfer-Encoding: chunked\r\n", b"2\r\n{}\r\n0\r\n\r\n")],
    ids=["length", "chunks"],
)
async def test_a_body_that_is_not_taken_is_refused_whenever_it_comes(
    server: RealtimeServer, line: bytes, framing: bytes, body: bytes
) -> None:
    head = b"%b HTTP/1.1\r\n%b%b\r\n" % (line, CLOSE, framing)
    async with raw(server.port) as client:
        client.writer.write(head + body)
        at_once = answers(await everything(client))
    async with raw(server.port) as client:
        client.writer.write(head)
        awaited = answers(await everything(client))

    assert at_once == awaited == [413 if line in (b"GET /up", b"HEAD /up", b"OPTIONS /apps/1001/events") else 405]


async def test_a_request_is_not_late_because_the_one_before_it_waited() -> None:
    """Nothing is read meanwhile: its own time begins with the answer."""
    between = Between()
    path, body = "/apps/1001/channels/chat", b'{"name":"e","channel":"chat","data":""}'
    async with realtime_server(engines=between.engines()) as server, raw(server.port) as client:
        between.reading.shut()
        head = signed("POST", "/apps/1001/events", body) + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(
            body
        )
        client.writer.write(signed("GET", path, info="subscription_count") + b"\r\n" + head)
        await eventually(lambda: between.reading.waiting)
        server._sweeper.now = lambda: time.monotonic() + 40  # type: ignore[method-assign]
        server._sweeper.turn()
        between.reading.open()
        async with asyncio.timeout(LIMIT_S):
            received = await client.reader.readuntil(b"}")
        server._sweeper.turn()
        client.writer.write(body)

        assert answers(received + await everything(client)) == [200, 200]
