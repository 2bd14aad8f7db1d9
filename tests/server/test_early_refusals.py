"""Calls that their head already rules out are refused before the body arrives."""

from __future__ import annotations

import json
import time

import pytest

from kit.client import Client, raw
from kit.realtime import KEY, SECRET
from kit.xhr import XhrClient
from smartlink.protocol.signing import signed_query
from smartlink.server.run.lifecycle import RealtimeServer

EVENT = json.dumps({"name": "e", "channel": "room", "data": "x" * 5_000}).encode()
EVENTS = "/apps/1001/events"


def signed(body: bytes = EVENT, secret: str = SECRET, path: str = EVENTS) -> str:
    return f"{path}?{signed_query(KEY, secret, 'POST', path, body, timestamp=int(time.time()))}"


def begin(client: Client, target: str, *more: str, size: int = len(EVENT)) -> None:
    """Send a head, and of the body the first byte."""
    lines = (f"POST {target} HTTP/1.1", "Host: x", f"Content-Length: {size}", *more)
    client.writer.write(("\r\n".join(lines) + "\r\n\r\n").encode() + EVENT[:1])


async def answer(client: Client) -> tuple[int, str]:
    """Status and body of the next answer."""
    head = (await client.reader.readuntil(b"\r\n\r\n")).decode().lower()
    size = int(head.partition("content-length: ")[2].partition("\r")[0])
    return int(head.split()[1]), (await client.reader.readexactly(size)).decode()


REFUSED = {
    "unsigned": (EVENTS, 401),
    "an unknown application": ("/apps/none/events", 404),
    "an unknown call": ("/apps/1001/nothing", 404),
    "an unknown path": ("/nothing", 404),
    "a call that is read": ("/apps/1001/channels", 405),
    "the probe": ("/up", 405),
    "an unknown session": (f"/pusher/app/{KEY}/1/abcdefgh/xhr_send", 404),
    "a session of an unknown application": ("/app/none/1/abcdefgh/xhr_send", 404),
}


@pytest.mark.parametrize(("target", "status"), REFUSED.values(), ids=REFUSED)
async def test_an_unauthorized_call_is_refused_before_its_body_arrives(
    server: RealtimeServer, target: str, status: int
) -> None:
    async with raw(server.port) as client:
        begin(client, target)

        assert (await answer(client))[0] == status
        assert await client.reader.read() == b""


async def test_a_signature_with_another_secret_is_refused_before_the_body_arrives(server: RealtimeServer) -> None:
    async with raw(server.port) as client:
        begin(client, signed(secret="another"))
        status, said = await answer(client)

        assert status == 401
        assert "auth_signature" in said


async def test_a_stream_request_with_a_body_is_refused_at_once(server: RealtimeServer) -> None:
    async with raw(server.port) as client:
        begin(client, f"/pusher/app/{KEY}/1/abcdefgh/xhr_streaming?protocol=7", size=200_000)

        assert (await answer(client))[0] == 413


async def test_expect_100_continue_is_refused_for_an_unauthorized_call(server: RealtimeServer) -> None:
    async with raw(server.port) as client:
        begin(client, EVENTS, "Expect: 100-continue")

        assert (await answer(client))[0] == 401


async def test_a_signed_call_whose_body_arrives_later_is_executed(server: RealtimeServer) -> None:
    async with raw(server.port) as client:
        target = signed()
        begin(client, target)
        assert (await answer_to_another(server))[0] == 404
        client.writer.write(EVENT[1:])

        assert await answer(client) == (200, "{}")


async def test_a_body_that_does_not_match_its_signature_is_refused(server: RealtimeServer) -> None:
    async with raw(server.port) as client:
        begin(client, signed())
        client.writer.write(EVENT[1:].replace(b"x", b"y"))
        status, said = await answer(client)

        assert status == 401
        assert "body_md5" in said


async def test_responses_keep_the_order_of_requests(server: RealtimeServer) -> None:
    async with raw(server.port) as client:
        client.writer.write(b"GET /up HTTP/1.1\r\nHost: x\r\n\r\n")
        begin(client, EVENTS)

        assert (await answer(client))[0] == 200
        assert (await answer(client))[0] == 401


async def test_a_fallback_clients_body_may_arrive_slowly(server: RealtimeServer) -> None:
    async with XhrClient(server.port) as session, raw(server.port) as client:
        body = json.dumps([json.dumps({"event": "pusher:ping", "data": {}})]).encode()
        lines = f"POST {session.base}/xhr_send HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        client.writer.write(lines + body[:1])
        assert (await answer_to_another(server))[0] == 404
        client.writer.write(body[1:])

        assert (await client.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 204")
        await session.expect("pusher:pong")


async def answer_to_another(server: RealtimeServer) -> tuple[int, str]:
    """A whole call by somebody else, after which the server has read what came before."""
    async with raw(server.port) as other:
        other.writer.write(b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n")
        return await answer(other)
