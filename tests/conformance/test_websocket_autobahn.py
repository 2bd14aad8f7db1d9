"""Our own port of the Autobahn TestSuite's cases, over real sockets. The numbers are Autobahn's."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from conformance.autobahn_cases import (
    MIB,
    PONG,
    PONG_EVENT,
    TEXT,
    Answer,
    Case,
    closing,
    fragmentation,
    frame,
    framing,
    limits,
    opcodes,
    ping_event,
    pings,
    reserved_bits,
    utf8,
    utf8_at_every_split,
)
from kit.client import Client, connected, raw
from kit.realtime import realtime_server
from smartlink.server.run.lifecycle import RealtimeServer

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def server() -> AsyncIterator[RealtimeServer]:
    async with realtime_server(reverb_app_max_message_size=MIB) as running:
        yield running
        assert running.metrics.internal_errors == 0


async def next_answer(client: Client) -> Answer | None:
    """The next message's event, the next control frame, or None at the end of the stream."""
    try:
        opcode, payload = await client.frame()
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    if opcode == TEXT:
        event: str = json.loads(payload)["event"]
        return event
    return opcode, payload


async def carry_out(client: Client, case: Case) -> None:
    parts = case.made()
    *first, last = parts
    for part in first:
        client.writer.write(part)
        if len(parts) <= 64:
            # Gives the server its turn, so that it reads part by part; how many it reads at once must not matter.
            await asyncio.sleep(0)
    if not case.early:
        client.writer.write(last)
    for answer in case.answers:
        assert await next_answer(client) == answer
    if case.code is None:
        # Nothing else was answered, and the connection is as good as before.
        client.writer.write(frame(TEXT, ping_event(40)))
        assert await next_answer(client) == PONG_EVENT
        return
    end = await next_answer(client)
    assert isinstance(end, tuple), end
    assert end[0] == 8
    assert int.from_bytes(end[1][:2], "big") == case.code if case.code != 1005 else end[1] == b""
    assert await next_answer(client) is None, "something came behind the close frame"


async def greeted(client: Client) -> None:
    answer = await client.handshake("/app/app-key?protocol=7")
    assert answer.startswith("HTTP/1.1 101")
    await client.receive()


CASES = [*framing(), *pings(), *reserved_bits(), *opcodes(), *fragmentation(), *utf8(), *closing(), *limits()]


@pytest.mark.parametrize("case", CASES, ids=str)
async def test_case(server: RealtimeServer, case: Case) -> None:
    async with raw(server.port) as client:
        await greeted(client)

        await carry_out(client, case)


SPLITS = list(utf8_at_every_split())


@pytest.mark.parametrize("section", sorted({case.number.split()[0].rpartition(".")[0] for case in SPLITS}))
async def test_text_is_validated_at_every_split(server: RealtimeServer, section: str) -> None:
    for case in SPLITS:
        if not case.number.startswith(f"{section}."):
            continue
        async with raw(server.port) as client:
            await greeted(client)
            try:
                await carry_out(client, case)
            except AssertionError as error:
                raise AssertionError(f"case {case.number}") from error


OFFERS = {
    "12 (all)": "permessage-deflate",
    "13.1": "permessage-deflate; client_no_context_takeover; client_max_window_bits",
    "13.2": "permessage-deflate; server_no_context_takeover",
    "13.3": "permessage-deflate; server_max_window_bits=9",
    "13.4": "permessage-deflate; server_max_window_bits=15",
    "13.5": "permessage-deflate; server_no_context_takeover; server_max_window_bits=9",
    "13.6": "permessage-deflate; server_no_context_takeover; server_max_window_bits=15",
    "13.7": "permessage-deflate; server_no_context_takeover; server_max_window_bits=9, permessage-deflate",
    "unknown parameter": "permessage-deflate; whatever=1",
    "parameter twice": "permessage-deflate; server_max_window_bits=9; server_max_window_bits=10",
    "window of 7 bits": "permessage-deflate; server_max_window_bits=7",
    "window of 16 bits": "permessage-deflate; client_max_window_bits=16",
    "window in words": 'permessage-deflate; client_max_window_bits="many"',
    "older extension": "x-webkit-deflate-frame, permessage-bzip2; server_max_compress_level=9",
    "no extension at all": ", ; ,",
    "32 KB of blanks": "permessage-deflate;" + " " * 12_000 + "x",
    "other alphabets": "permessage-deflate; \xe9\xff",
}


@pytest.mark.parametrize("offer", OFFERS)
async def test_compression_is_not_negotiated_and_its_bit_is_refused(server: RealtimeServer, offer: str) -> None:
    """Sections 12 and 13."""
    async with raw(server.port) as client:
        client.writer.write(
            b"GET /app/app-key?protocol=7 HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Extensions: " + OFFERS[offer].encode("latin-1") + b"\r\n\r\n"
        )
        answer = (await client.reader.readuntil(b"\r\n\r\n")).lower()
        assert answer.startswith(b"http/1.1 101")
        assert b"sec-websocket-extensions" not in answer
        await client.receive()
        client.writer.write(frame(TEXT, b"\xaa\x56\x4a\x2d", rsv=4))

        assert (await client.closed()).code == 1002


async def test_unmasked_frames_are_refused(server: RealtimeServer) -> None:
    """Autobahn's client always masks; RFC 6455, section 5.1, has the server fail whoever does not."""
    for opcode in (TEXT, 9, PONG, 8):
        async with raw(server.port) as client:
            await greeted(client)
            client.writer.write(frame(opcode, b"", masked=False))
            assert (await client.closed()).code == 1002


async def test_a_peer_that_is_still_sending_reads_the_close_code_of_an_error(server: RealtimeServer) -> None:
    """9.1.6 from the other side: the sender is in the middle of 16 MiB when it is refused."""
    async with connected(server.port) as client:
        client.writer.write(frame(TEXT, ping_event(16 * MIB)))

        assert (await client.closed()).code == 1009


async def test_a_peer_that_is_sending_when_the_server_closes_reads_the_reason() -> None:
    async with realtime_server() as running, connected(running.port) as client:
        half = frame(TEXT, ping_event(9_000))
        client.writer.write(half[:5_000])
        stopping = asyncio.create_task(running.stop())
        client.writer.write(half[5_000:] + half * 20)

        assert (await client.closed()).code == 4200
        client.writer.write(frame(8, (4200).to_bytes(2, "big")))
        await stopping
