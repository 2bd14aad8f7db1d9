"""Ambiguous and endless requests are refused once, and nothing after them is read.

Every malformed request is followed by a second, well-formed one that would publish; it must never have an effect.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Callable

import pytest
import pytest_asyncio

from kit.client import Client, connected, raw
from kit.engines import Between
from kit.realtime import KEY, SECRET, call, realtime_server
from kit.waiting import LIMIT_S, eventually
from smartlink.protocol.signing import signed_query
from smartlink.server.run.lifecycle import RealtimeServer

pytestmark = pytest.mark.asyncio(loop_scope="module")

EVENT = b'{"name":"smuggled","channel":"chat","data":""}'
H = b"Host: x\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"


def publishing(
    headers: bytes = b"", body: bytes = EVENT, *, length: bytes | None = None, version: bytes = b"1.1"
) -> bytes:
    """A rightly signed `POST events`."""
    query = signed_query(KEY, SECRET, "POST", "/apps/1001/events", EVENT, timestamp=int(time.time()))
    if length is None:
        length = b"Content-Length: %d\r\n" % len(body)
    return b"POST /apps/1001/events?%b HTTP/%b\r\nHost: x\r\n%b%b\r\n%b" % (
        query.encode(),
        version,
        length,
        headers,
        body,
    )


def post(headers: bytes, body: bytes = b"", version: bytes = b"1.1") -> bytes:
    return b"POST /up HTTP/%b\r\nHost: x\r\n%b\r\n%b" % (version, headers, body)


def chunks(body: bytes) -> bytes:
    return post(CHUNKED, body)


def get(line: bytes, headers: bytes = H) -> bytes:
    return b"%b\r\n%b\r\n" % (line, headers)


REFUSED: dict[str, tuple[bytes, int]] = {
    # Who says where the body ends?
    "CL.TE": (post(b"Content-Length: 6\r\n" + CHUNKED, b"0\r\n\r\nG"), 400),
    "TE.CL": (post(CHUNKED + b"Content-Length: 4\r\n", b"5c\r\nG"), 400),
    "CL 0 and TE": (post(b"Content-Length: 0\r\n" + CHUNKED, b"0\r\n\r\n"), 400),
    "TE.TE: chunked, then identity": (post(CHUNKED + b"Transfer-Encoding: identity\r\n", b"0\r\n\r\n"), 400),
    "TE.TE: identity, then chunked": (post(b"Transfer-Encoding: identity\r\n" + CHUNKED, b"0\r\n\r\n"), 400),
    "TE.TE: chunked twice": (post(CHUNKED * 2, b"0\r\n\r\n"), 400),
    "TE.TE: other case of the name": (post(b"transfer-encoding: x\r\n" + CHUNKED, b"0\r\n\r\n"), 400),
    "TE chunked, chunked": (post(b"Transfer-Encoding: chunked, chunked\r\n", b"0\r\n\r\n"), 400),
    "TE gzip, chunked": (post(b"Transfer-Encoding: gzip, chunked\r\n", b"0\r\n\r\n"), 501),
    "TE chunked, gzip": (post(b"Transfer-Encoding: chunked, gzip\r\n", b"0\r\n\r\n"), 400),
    "TE chunked, identity": (post(b"Transfer-Encoding: chunked, identity\r\n", b"0\r\n\r\n"), 400),
    "TE identity": (post(b"Transfer-Encoding: identity\r\n", b"0\r\n\r\n"), 501),
    "TE identity on GET": (get(b"GET /up HTTP/1.1", H + b"Transfer-Encoding: identity\r\n"), 501),
    "TE xchunked": (post(b"Transfer-Encoding: xchunked\r\n", b"0\r\n\r\n"), 501),
    "TE quoted": (post(b'Transfer-Encoding: "chunked"\r\n', b"0\r\n\r\n"), 501),
    "TE with parameter": (post(b"Transfer-Encoding: chunked;x=1\r\n", b"0\r\n\r\n"), 501),
    "TE empty": (post(b"Transfer-Encoding:\r\n", b"0\r\n\r\n"), 400),
    "TE behind a vertical tab": (post(b"Transfer-Encoding: \x0bchunked\r\n", b"0\r\n\r\n"), 400),
    "TE behind a form feed": (post(b"Transfer-Encoding:\x0cchunked\r\n", b"0\r\n\r\n"), 400),
    "TE with NUL": (post(b"Transfer-Encoding: chunked\0\r\n", b"0\r\n\r\n"), 400),
    "TE in look-alike letters": (post("Transfer-Encoding: сhunked\r\n".encode(), b"0\r\n\r\n"), 501),
    "TE folded": (post(b"Transfer-Encoding:\r\n chunked\r\n", b"0\r\n\r\n"), 400),
    "TE, blank before the colon": (post(b"Transfer-Encoding : chunked\r\n", b"0\r\n\r\n"), 400),
    "TE, tab before the colon": (post(b"Transfer-Encoding\t: chunked\r\n", b"0\r\n\r\n"), 400),
    "TE behind a blank": (post(b"X: y\r\n Transfer-Encoding: chunked\r\n", b"0\r\n\r\n"), 400),
    "TE behind a bare LF": (post(b"X: y\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n"), 400),
    "TE behind a bare CR": (post(b"X: y\rTransfer-Encoding: chunked\r\n", b"0\r\n\r\n"), 400),
    "TE in HTTP/1.0": (post(CHUNKED, b"0\r\n\r\n", version=b"1.0"), 400),
    "CL twice, the same": (post(b"Content-Length: 0\r\n" * 2), 400),
    "CL twice, different": (post(b"Content-Length: 0\r\nContent-Length: 5\r\n", b"hello"), 400),
    "CL as a list": (post(b"Content-Length: 0, 0\r\n"), 400),
    "CL +5": (post(b"Content-Length: +5\r\n", b"hello"), 400),
    "CL -5": (post(b"Content-Length: -5\r\n", b"hello"), 400),
    "CL 0x5": (post(b"Content-Length: 0x5\r\n", b"hello"), 400),
    "CL 5 5": (post(b"Content-Length: 5 5\r\n", b"hello"), 400),
    "CL 5_0": (post(b"Content-Length: 5_0\r\n", b"hello"), 400),
    "CL 5.0": (post(b"Content-Length: 5.0\r\n", b"hello"), 400),
    "CL 1e1": (post(b"Content-Length: 1e1\r\n", b"hello"), 400),
    "CL empty": (post(b"Content-Length:\r\n", b"hello"), 400),
    "CL in other digits": (post("Content-Length: ٥\r\n".encode(), b"hello"), 400),
    "CL superscript": (post(b"Content-Length: \xb2\r\n", b"he"), 400),
    "CL over 64 bits": (post(b"Content-Length: 18446744073709551621\r\n", b"hello"), 400),
    "CL of 5,000 digits": (post(b"Content-Length: " + b"9" * 5_000 + b"\r\n", b"hello"), 400),
    "CL over the limit": (post(b"Content-Length: 262145\r\n"), 413),
    "CL, blank before the colon": (post(b"Content-Length : 5\r\n", b"hello"), 400),
    "CL folded": (post(b"Content-Length:\r\n 5\r\n", b"hello"), 400),
    # Chunks
    "chunk size in no digits": (chunks(b"zz\r\nx\r\n0\r\n\r\n"), 400),
    "chunk size 0x1": (chunks(b"0x1\r\nx\r\n0\r\n\r\n"), 400),
    "chunk size -1": (chunks(b"-1\r\nx\r\n0\r\n\r\n"), 400),
    "chunk size +1": (chunks(b"+1\r\nx\r\n0\r\n\r\n"), 400),
    "chunk size 1 with a blank behind": (chunks(b"1 \r\nx\r\n0\r\n\r\n"), 400),
    "chunk size 1 with a blank before": (chunks(b" 1\r\nx\r\n0\r\n\r\n"), 400),
    "chunk size 1_0": (chunks(b"1_0\r\nx\r\n0\r\n\r\n"), 400),
    "chunk size empty": (chunks(b"\r\nx\r\n0\r\n\r\n"), 400),
    "chunk size over 64 bits": (chunks(b"fffffffffffffffff\r\nx\r\n0\r\n\r\n"), 400),
    "chunk size of 2^64": (chunks(b"10000000000000000\r\nx\r\n0\r\n\r\n"), 400),
    "chunk lines with LF only": (chunks(b"1\nx\n0\n\n"), 400),
    "chunk size line with CR only": (chunks(b"1\rx\r\n0\r\n\r\n"), 400),
    "chunk longer than its size": (chunks(b"1\r\nxx\r\n0\r\n\r\n"), 400),
    "chunk without its CRLF": (chunks(b"1\r\nx0\r\n\r\n"), 400),
    "chunk extension that ends in LF": (chunks(b"1;a=b\nx\r\n0\r\n\r\n"), 400),
    "chunk extension with NUL": (chunks(b"1;a=\0\r\nx\r\n0\r\n\r\n"), 400),
    "chunk extension with CR": (chunks(b"1;a=\rb\r\nx\r\n0\r\n\r\n"), 400),
    "last chunk, LF only": (chunks(b"0\n\n"), 400),
    "trailer with a length": (chunks(b"0\r\nContent-Length: 5\r\n\r\n"), 400),
    "trailer with a coding": (chunks(b"0\r\nTransfer-Encoding: identity\r\n\r\n"), 400),
    "trailer folded": (chunks(b"0\r\nX: a\r\n b\r\n\r\n"), 400),
    "trailers without end": (chunks(b"0\r\n" + b"X: yyyyyyyyyyyyyyyy\r\n" * 1_000 + b"\r\n"), 431),
    # Header lines
    "obs-fold": (get(b"GET /up HTTP/1.1", H + b"X: a\r\n b\r\n"), 400),
    "obs-fold with tab": (get(b"GET /up HTTP/1.1", H + b"X: a\r\n\tb\r\n"), 400),
    "blank before the first header": (get(b"GET /up HTTP/1.1", b" " + H), 400),
    "bare LF everywhere": (b"GET /up HTTP/1.1\nHost: x\n\n", 400),
    "bare LF behind the request line": (b"GET /up HTTP/1.1\nHost: x\r\n\r\n", 400),
    "bare LF behind a header": (get(b"GET /up HTTP/1.1", b"Host: x\nX: y\r\n"), 400),
    "bare LF as the last line": (b"GET /up HTTP/1.1\r\nHost: x\r\n\n", 400),
    "bare CR in a value": (get(b"GET /up HTTP/1.1", H + b"X: a\rb\r\n"), 400),
    "bare CR behind the request line": (b"GET /up HTTP/1.1\rHost: x\r\n\r\n", 400),
    "CR CR LF": (get(b"GET /up HTTP/1.1", H + b"X: a\r\r\n"), 400),
    "NUL in a value": (get(b"GET /up HTTP/1.1", H + b"X: a\0b\r\n"), 400),
    "NUL in a name": (get(b"GET /up HTTP/1.1", H + b"X\0: b\r\n"), 400),
    "control character in a value": (get(b"GET /up HTTP/1.1", H + b"X: a\x01b\r\n"), 400),
    "DEL in a value": (get(b"GET /up HTTP/1.1", H + b"X: a\x7fb\r\n"), 400),
    "name in UTF-8": (get(b"GET /up HTTP/1.1", H + "ž: 1\r\n".encode()), 400),
    "name with a blank": (get(b"GET /up HTTP/1.1", H + b"X y: 1\r\n"), 400),
    "name with a bracket": (get(b"GET /up HTTP/1.1", H + b"X(y: 1\r\n"), 400),
    "name empty": (get(b"GET /up HTTP/1.1", H + b": 1\r\n"), 400),
    "no colon": (get(b"GET /up HTTP/1.1", H + b"X\r\n"), 400),
    "2,000 headers": (get(b"GET /up HTTP/1.1", H + b"".join(b"X-%d: 1\r\n" % i for i in range(2_000))), 431),
    "header of 64 KiB": (get(b"GET /up HTTP/1.1", H + b"X: " + b"a" * 65_536 + b"\r\n"), 431),
    "header name of 64 KiB": (get(b"GET /up HTTP/1.1", H + b"X" * 65_536 + b": 1\r\n"), 431),
    "one name 200 times": (get(b"GET /up HTTP/1.1", H + b"X: " + b"a" * 100 + (b"\r\nX: " + b"a" * 100) * 199 + b"\r\n"), 431),
    "target of 64 KiB": (get(b"GET /" + b"a" * 65_536 + b" HTTP/1.1"), 431),
    # Host
    "no Host": (get(b"GET /up HTTP/1.1", b""), 400),
    "Host twice": (get(b"GET /up HTTP/1.1", H * 2), 400),
    "Host twice in other case": (get(b"GET /up HTTP/1.1", H + b"HOST: y\r\n"), 400),
    "Host with a path": (get(b"GET /up HTTP/1.1", b"Host: x/y\r\n"), 400),
    "Host with a user": (get(b"GET /up HTTP/1.1", b"Host: u@x\r\n"), 400),
    "Host with a blank": (get(b"GET /up HTTP/1.1", b"Host: x y\r\n"), 400),
    "Host with a port in words": (get(b"GET /up HTTP/1.1", b"Host: x:http\r\n"), 400),
    "Host with two ports": (get(b"GET /up HTTP/1.1", b"Host: x:1:2\r\n"), 400),
    "Host as a list": (get(b"GET /up HTTP/1.1", b"Host: x, y\r\n"), 400),
    "Host in other letters": (get(b"GET /up HTTP/1.1", "Host: ž\r\n".encode()), 400),
    # The request line
    "HTTP/0.9": (b"GET /up\r\n\r\n", 505),
    "HTTP/0.9 by name": (get(b"GET /up HTTP/0.9"), 505),
    "HTTP/1.2": (get(b"GET /up HTTP/1.2"), 400),
    "HTTP/2.0": (get(b"GET /up HTTP/2.0"), 505),
    "HTTP/11.1": (get(b"GET /up HTTP/11.1"), 400),
    "HTTP/1.10": (get(b"GET /up HTTP/1.10"), 400),
    "HTTP/1.": (get(b"GET /up HTTP/1."), 400),
    "http/1.1": (get(b"GET /up http/1.1"), 400),
    "HTTPS/1.1": (get(b"GET /up HTTPS/1.1"), 400),
    "HTTP/2's preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "a TLS hello": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    "RTSP": (get(b"SETUP /up RTSP/1.0"), 501),
    "ICE": (get(b"SOURCE /up ICE/1.0"), 501),
    "CONNECT": (get(b"CONNECT x:80 HTTP/1.1") + b"tunnelled", 501),
    "TRACE": (get(b"TRACE /up HTTP/1.1"), 501),
    "unknown method": (get(b"FOO /up HTTP/1.1"), 400),
    "method in lower case": (get(b"get /up HTTP/1.1"), 400),
    "tabs between the words": (get(b"GET\t/up\tHTTP/1.1"), 400),
    "blank behind the version": (get(b"GET /up HTTP/1.1 "), 400),
    "blank in the target": (get(b"GET /u p HTTP/1.1"), 400),
    "NUL in the target": (get(b"GET /u\0p HTTP/1.1"), 400),
    "UTF-8 in the target": (get("GET /ž HTTP/1.1".encode()), 400),
    "no target": (get(b"GET HTTP/1.1"), 400),
    "relative target": (get(b"GET up HTTP/1.1"), 400),
    "asterisk": (get(b"OPTIONS * HTTP/1.1"), 400),
    "asterisk with GET": (get(b"GET * HTTP/1.1"), 400),
    "URL of another host": (get(b"GET http://y/up HTTP/1.1"), 400),
    "URL with a user": (get(b"GET http://u@x/up HTTP/1.1"), 400),
    "URL of another scheme": (get(b"GET ftp://x/up HTTP/1.1"), 400),
    # Expectations and upgrades
    "Expect something else": (post(b"Content-Length: 5\r\nExpect: 200-ok\r\n", b"hello"), 417),
    "Expect twice": (post(b"Content-Length: 5\r\n" + b"Expect: 100-continue\r\n" * 2, b"hello"), 400),
    "handshake with a body": (
        (
            b"GET /app/app-key?protocol=7 HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nContent-Length: 5\r\n\r\nhello"
        ),
        400,
    ),
    "handshake with chunks": (
        (
            b"GET /app/app-key?protocol=7 HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n" + CHUNKED + b"\r\n0\r\n\r\n"
        ),
        400,
    ),
    "POST handshake": (
        (
            b"POST /app/app-key?protocol=7 HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nContent-Length: 0\r\n\r\n"
        ),
        405,
    ),
    "HTTP/1.0 handshake": (
        (
            b"GET /app/app-key?protocol=7 HTTP/1.0\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        ),
        400,
    ),
}  # fmt: skip


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def server() -> AsyncIterator[RealtimeServer]:
    async with realtime_server() as running:
        yield running
        assert running.metrics.internal_errors == 0


async def everything(client: Client) -> bytes:
    """What comes until the end of the stream."""
    async with asyncio.timeout(LIMIT_S):
        return await client.reader.read()


def answers(received: bytes) -> list[int]:
    """The status of each answer."""
    return [int(status) for status in re.findall(rb"HTTP/1\.1 ([0-9]{3}) ", received)]


@pytest.mark.parametrize("name", REFUSED)
async def test_an_ambiguous_request_is_refused_once_and_nothing_after_it_is_read(
    server: RealtimeServer, name: str
) -> None:
    request, status = REFUSED[name]
    before = server.metrics.publications
    async with raw(server.port) as client:
        client.writer.write(request + publishing())
        received = await everything(client)

    assert answers(received) == [status], received
    assert b"\r\nConnection: close\r\n" in received
    assert server.metrics.publications == before


@pytest.mark.parametrize("name", ["CL.TE", "bare LF everywhere", "no colon", "chunk size empty", "CL +5"])
async def test_requests_before_it_are_answered(server: RealtimeServer, name: str) -> None:
    request, status = REFUSED[name]
    async with raw(server.port) as client:
        client.writer.write(get(b"GET /up HTTP/1.1") * 2 + request + publishing())

        assert answers(await everything(client)) == [200, 200, status]


HARMLESS: dict[str, Callable[[], bytes]] = {
    "plain": lambda: publishing(),
    "chunked": lambda: publishing(CHUNKED, b"%x\r\n%b\r\n0\r\n\r\n" % (len(EVENT), EVENT), length=b""),
    "chunked in upper case": lambda: publishing(
        b"Transfer-Encoding: CHUNKED \r\n", b"%X\r\n%b\r\n0\r\n\r\n" % (len(EVENT), EVENT), length=b""
    ),
    "a chunk for every byte": lambda: publishing(
        CHUNKED, b"".join(b"1\r\n%c\r\n" % byte for byte in EVENT) + b"0\r\n\r\n", length=b""
    ),
    "chunk extensions": lambda: publishing(CHUNKED, b'%x;a=b;c="d"\r\n%b\r\n0;e\r\n\r\n' % (len(EVENT), EVENT), length=b""),
    "chunk size with zeros before": lambda: publishing(CHUNKED, b"0000%x\r\n%b\r\n00\r\n\r\n" % (len(EVENT), EVENT), length=b""),
    "trailers that pretend": lambda: publishing(
        CHUNKED, b"%x\r\n%b\r\n0\r\nHost: evil\r\nExpect: x\r\nUpgrade: x\r\n\r\n" % (len(EVENT), EVENT), length=b""
    ),
    "length with zeros before": lambda: publishing(length=b"Content-Length: 00%d\r\n" % len(EVENT)),
    "blank lines before": lambda: b"\r\n\r\n\r\n" + publishing(),
    "Expect: 100-continue": lambda: publishing(b"Expect: 100-Continue\r\n"),
    "an offer of HTTP/2, as Java's client makes it": lambda: publishing(
        b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA\r\n"
    ),
    "an offer of a WebSocket where there is none": lambda: publishing(b"Connection: Upgrade\r\nUpgrade: websocket\r\n"),
    "the whole URL": lambda: publishing().replace(b"POST /", b"POST http://X/", 1),
    "two blanks between the words": lambda: publishing().replace(b" HTTP/1.1", b"  HTTP/1.1", 1),
    "value in Latin-1": lambda: publishing(b"X: \xe9\r\n"),
    "an address as Host": lambda: publishing().replace(b"Host: x", b"Host: [::1]:8080", 1),
    "an empty Host": lambda: publishing().replace(b"Host: x", b"Host:", 1),
}  # fmt: skip


@pytest.mark.parametrize("name", HARMLESS)
async def test_valid_requests_are_answered_and_the_connection_continues(server: RealtimeServer, name: str) -> None:
    before = server.metrics.publications
    async with raw(server.port) as client:
        for _ in range(2):
            client.writer.write(HARMLESS[name]())
        client.writer.write(get(b"GET /up HTTP/1.1", H + b"Connection: close\r\n"))
        received = answers(await everything(client))

    assert [status for status in received if status != 100] == [200, 200, 200]
    assert server.metrics.publications == before + 2


@pytest.mark.parametrize("fields", [b"", b"Connection: keep-alive\r\n"])
async def test_http_1_0_is_answered_and_closed(server: RealtimeServer, fields: bytes) -> None:
    async with raw(server.port) as client:
        client.writer.write(b"GET /up HTTP/1.0\r\n%b\r\n" % fields + publishing())
        received = await everything(client)

        assert answers(received) == [200]
        assert b"\r\nConnection: close\r\n" in received


async def test_nothing_after_a_closing_request_is_read(server: RealtimeServer) -> None:
    before = server.metrics.publications
    async with raw(server.port) as client:
        client.writer.write(get(b"GET /up HTTP/1.1", H + b"Connection: close\r\n") + publishing())

        assert answers(await everything(client)) == [200]
    assert server.metrics.publications == before


async def test_expect_100_continue_gets_a_100(server: RealtimeServer) -> None:
    request = publishing(b"Expect: 100-continue\r\n")
    head = len(request) - len(EVENT)
    async with raw(server.port) as client:
        client.writer.write(request[:head])
        async with asyncio.timeout(LIMIT_S):
            assert (await client.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100 ")
        client.writer.write(request[head:])
        async with asyncio.timeout(LIMIT_S):
            assert (await client.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")


async def test_expect_100_continue_is_refused_for_a_body_over_the_limit(server: RealtimeServer) -> None:
    async with raw(server.port) as client:
        client.writer.write(post(b"Content-Length: 262145\r\nExpect: 100-continue\r\n"))

        assert answers(await everything(client)) == [413]


async def test_a_chunked_body_over_the_limit_is_refused_in_the_middle(server: RealtimeServer) -> None:
    async with raw(server.port) as client:
        client.writer.write(publishing(CHUNKED, (b"8000\r\n" + b"x" * 0x8000 + b"\r\n") * 9, length=b""))

        assert answers(await everything(client)) == [413]


async def test_endless_chunk_extensions_are_refused(server: RealtimeServer) -> None:
    """A body of a few bytes, megabytes around it."""
    async with raw(server.port) as client:
        client.writer.write(publishing(CHUNKED, (b"1;" + b"x" * 10_000 + b"\r\ny\r\n") * 120, length=b""))

        assert answers(await everything(client)) == [413]


async def test_endless_blank_lines_are_refused(server: RealtimeServer) -> None:
    async with raw(server.port) as client:
        client.writer.write(b"\r\n" * 20_000)

        assert answers(await everything(client)) == [431]


async def test_pipelined_requests_are_answered_in_order(server: RealtimeServer) -> None:
    async with raw(server.port) as client:
        client.writer.write(b"".join(get(b"%b HTTP/1.1" % line) for line in (b"GET /up", b"GET /nothing") * 20))
        client.writer.write(get(b"GET /up HTTP/1.1", H + b"Connection: close\r\n"))

        assert answers(await everything(client)) == [200, 404] * 20 + [200]


async def test_requests_after_one_that_waits_for_an_engine_are_answered_in_order() -> None:
    between = Between()
    path = "/apps/1001/channels/chat"
    query = signed_query(
        KEY, SECRET, "GET", path, timestamp=int(time.time()), params={"info": "subscription_count"}
    ).encode()
    async with realtime_server(engines=between.engines()) as server, raw(server.port) as client:
        between.reading.shut()
        client.writer.write(get(b"GET %b?%b HTTP/1.1" % (path.encode(), query)) + get(b"GET /nothing HTTP/1.1") * 3)
        client.writer.write(b"nonsense\r\n\r\n" + publishing())
        await eventually(lambda: server.metrics.http_requests == 1)
        await settled(server)
        between.reading.open()

        assert answers(await everything(client)) == [200, 404, 404, 404, 400]
        assert server.metrics.publications == 0


async def test_too_many_pipelined_requests_are_refused(server: RealtimeServer) -> None:
    async with raw(server.port) as client:
        client.writer.write(get(b"GET /up HTTP/1.1") * 500)

        received = answers(await everything(client))
    assert received[-1] == 429
    assert set(received[:-1]) == {200}


async def test_a_peer_that_reads_no_responses_is_not_read_and_finally_cut() -> None:
    async with realtime_server() as server, raw(server.port) as client:
        client.reader._transport.pause_reading()  # type: ignore[attr-defined]
        await eventually(lambda: server._poller.links)  # type: ignore[union-attr]
        (link,) = server._poller.links.values()  # type: ignore[union-attr]
        for asked in range(50, 100_000, 50):
            client.writer.write(get(b"GET /nothing HTTP/1.1") * 50)
            await eventually(lambda asked=asked: link.buffered or server.metrics.http_requests == asked)  # type: ignore[misc]
            if link.buffered:
                break
        answered = server.metrics.http_requests
        client.writer.write(get(b"GET /nothing HTTP/1.1") * 50)
        await settled(server)

        assert server.metrics.http_requests <= answered + 1 + 50
        assert link.buffered < 65_536
        later(server, 11)
        await eventually(lambda: not server._poller.links)  # type: ignore[union-attr]


async def settled(server: RealtimeServer) -> None:
    """Wait until the server has read what was written before."""
    for _ in range(2):
        async with raw(server.port) as other:
            other.writer.write(get(b"GET /up HTTP/1.1", H + b"Connection: close\r\n"))
            await everything(other)


def later(server: RealtimeServer, seconds: float) -> None:
    """Let the server's clock show `seconds` more, and have it look after all connections."""
    server._sweeper.now = lambda: time.monotonic() + seconds  # type: ignore[method-assign]
    server._sweeper.turn()


SLOW: dict[str, tuple[bytes, list[bytes], float, list[int]]] = {
    "says nothing": (b"", [], 10, []),
    "stops in the request line": (b"GET /u", [], 10, [408]),
    "stops in a header": (b"GET /up HTTP/1.1\r\nHos", [], 10, [408]),
    "sends a header now and then": (b"GET /up HTTP/1.1\r\n", [b"X-A: 1\r\n", b"X-B: 1\r\n"], 10, [408]),
    "stops before the last line": (b"GET /up HTTP/1.1\r\nHost: x\r\n", [], 10, [408]),
    "stops before the body": (post(b"Content-Length: 5\r\n"), [], 30, [408]),
    "sends a body now and then": (post(b"Content-Length: 50\r\n"), [b"x", b"x"], 30, [408]),
    "stops before the last chunk": (chunks(b"1\r\nx\r\n"), [], 30, [408]),
    "stops in the trailers": (chunks(b"0\r\nX: y\r\n"), [], 30, [408]),
    "goes quiet after an answer": (get(b"GET /up HTTP/1.1"), [], 75, [200]),
    "begins a second request": (get(b"GET /up HTTP/1.1") + b"GET", [], 10, [200, 408]),
}


@pytest.mark.parametrize("name", SLOW)
async def test_a_slow_request_times_out(name: str) -> None:
    start, more, limit_s, expected = SLOW[name]
    # Of a call that is not signed no body is waited for.
    query = signed_query(KEY, SECRET, "POST", "/apps/1001/events", EVENT, timestamp=int(time.time())).encode()
    async with realtime_server() as server, raw(server.port) as client:
        client.writer.write(start.replace(b"POST /up ", b"POST /apps/1001/events?%b " % query))
        for part in more:
            await settled(server)
            client.writer.write(part)
        await settled(server)
        received = b""
        while expected[:1] == [200] and b"OK" not in received:
            received += await client.reader.read(1_000)
        later(server, limit_s - 2)
        assert server._poller.links  # type: ignore[union-attr]
        later(server, limit_s + 1)
        received += await everything(client)

        assert answers(received) == expected


async def test_a_refused_peer_that_stays_is_cut_after_lingering() -> None:
    async with realtime_server() as server, raw(server.port) as client:
        client.writer.write(b"nonsense\r\n\r\n")
        assert answers(await everything(client)) == [400]
        client.writer.write(b"x" * 100)
        assert server._poller.links  # type: ignore[union-attr]
        later(server, 2)

        await eventually(lambda: not server._poller.links)  # type: ignore[union-attr]


async def test_other_clients_still_receive_events_afterwards(server: RealtimeServer) -> None:
    async with connected(server.port) as bystander:
        await bystander.subscribe("chat")
        await call(server.port, "POST", "/apps/1001/events", EVENT)

        assert (await bystander.receive())["event"] == "smuggled"
