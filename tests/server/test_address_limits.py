"""Connections and fallback sessions per address are limited, so that others find room."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import AsyncExitStack

import pytest

from kit.client import Client, connected, raw
from kit.realtime import KEY, an_app, realtime_server
from kit.waiting import eventually
from kit.xhr import XhrClient, session_name
from smartlink.server.run.lifecycle import RealtimeServer
from smartlink.server.runtime.limits import PER_PUBLIC_ADDRESS, AddressCount


async def test_connections_per_address_are_limited_with_a_retry_code() -> None:
    async with (
        realtime_server(reverb_server_connections_per_address=2) as server,
        connected(server.port),
        AsyncExitStack() as stack,
    ):
        leaving = await stack.enter_async_context(connected(server.port))
        async with connected(server.port) as third:
            assert third.refusal["code"] == 4100  # type: ignore[attr-defined]
        await stack.aclose()
        assert leaving.socket_id
        await eventually(lambda: len(server._hub) == 1)
        async with connected(server.port) as fourth:
            assert fourth.socket_id


@pytest.mark.parametrize(
    ("first", "second", "is_one"),
    [
        ("203.0.113.1", "203.0.113.1", True),
        ("203.0.113.1", "203.0.113.2", False),
        ("2001:db8:1:2::1", "2001:db8:1:2:3::9", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("::ffff:203.0.113.1", "203.0.113.1", True),
    ],
)
async def test_behind_a_trusted_proxy_the_clients_address_counts(first: str, second: str, is_one: bool) -> None:
    settings = {"reverb_server_trusted_proxies": "127.0.0.1", "reverb_server_connections_per_address": 1}
    async with (
        realtime_server(**settings) as server,
        connected(server.port, headers=f"X-Forwarded-For: {first}\r\n") as ana,
        connected(server.port, headers=f"X-Forwarded-For: {second}\r\n") as ben,
    ):
        assert ana.socket_id
        assert (not ben.socket_id) is is_one


async def test_fallback_sessions_over_one_connection_count_too() -> None:
    async with realtime_server(reverb_server_connections_per_address=3) as server, raw(server.port) as client:
        lines = [await open_session(client, session_name()) for _ in range(10)]

        assert [line[0] for line in lines] == ["connection_established"] * 3 + ["error"] * 7
        assert {line[1] for line in lines[3:]} == {4100}
        assert len(server._hub) == 3


async def open_session(client: Client, session: str) -> tuple[str, int | None]:
    """Begin a session by a poll: what its first message is, and the code of an error."""
    client.writer.write(
        f"POST /pusher/app/{KEY}/{session}/xhr?protocol=7 HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".encode()
    )
    async with asyncio.timeout(10):
        head = (await client.reader.readuntil(b"\r\n\r\n")).lower()
        if b"chunked" in head:
            size = int(await client.reader.readuntil(b"\r\n"), 16)
            body = (await client.reader.readexactly(size + len(b"\r\n0\r\n\r\n")))[:size]
        else:
            body = await client.reader.readexactly(int(head.partition(b"content-length: ")[2].partition(b"\r")[0]))
    message = json.loads(json.loads(body.decode().split("\n")[1][1:])[0])
    data = message["data"] if isinstance(message["data"], dict) else json.loads(message["data"])
    return message["event"].partition(":")[2], data.get("code")


def later(server: RealtimeServer, seconds: float) -> None:
    """Let the server's clock show `seconds` more, and have it look after all connections."""
    server._sweeper.now = lambda: time.monotonic() + seconds  # type: ignore[method-assign]
    server._sweeper.turn()


async def test_an_abandoned_session_ends_soon(server: RealtimeServer) -> None:
    async with raw(server.port) as client, XhrClient(server.port, is_poll=True) as other:
        await open_session(client, session_name())
        await other.subscribe("room")
        later(server, 4)
        assert len(server._hub) == 2
        later(server, 6)

        assert len(server._hub) == 1


async def test_a_session_that_only_polls_ends() -> None:
    async with realtime_server(an_app(ping_interval_s=15)) as server, XhrClient(server.port):
        (connection,) = server._hub
        for seconds in (14, 29):
            later(server, seconds)
            connection.note_activity()  # type: ignore[attr-defined] # as when it asks for lines again
        assert len(server._hub) == 1
        later(server, 31)

        assert len(server._hub) == 0


def test_by_default_only_public_addresses_have_a_limit() -> None:
    count = AddressCount()
    for address in ("8.8.8.8", "10.0.0.1", "127.0.0.1", "unix"):
        for _ in range(PER_PUBLIC_ADDRESS):
            assert count.has_room("1", address)
            count.take("1", address)

    assert not count.has_room("1", "8.8.8.8")
    assert count.has_room("2", "8.8.8.8")
    assert all(count.has_room("1", address) for address in ("8.8.4.4", "10.0.0.1", "127.0.0.1", "unix"))
    count.release("1", "8.8.8.8")
    assert count.has_room("1", "8.8.8.8")
