"""A client that sends fast does not delay the others."""

from __future__ import annotations

import asyncio
import itertools
import json
from contextlib import AsyncExitStack

import pytest

from kit.client import connected, raw
from kit.engines import Between
from kit.realtime import an_app, call, realtime_server
from kit.waiting import eventually
from smartlink.server.run.lifecycle import RealtimeServer
from smartlink.server.runtime.eager import AT_ONCE
from smartlink.server.runtime.pace import FRAMES_AT_ONCE
from smartlink.server.transports.http.channels import list_channels
from smartlink.server.transports.http.connection import MAX_PIPELINED, REQUESTS_AT_ONCE

PING, EMPTY_TEXT = b"\x89\x80\0\0\0\0", b"\x81\x80\0\0\0\0"
MANY = 3_000


async def test_only_a_few_empty_messages_are_handled_per_turn(server: RealtimeServer) -> None:
    async with connected(server.port) as busy, connected(server.port) as other:
        busy.writer.write(EMPTY_TEXT * MANY)
        seen = [0]
        async with asyncio.timeout(30):
            while seen[-1] < MANY:
                await asyncio.sleep(0)
                seen.append(server.metrics.messages_received)

        assert max(after - before for before, after in itertools.pairwise(seen)) <= 2 * FRAMES_AT_ONCE
        assert await other.is_quiet()


async def test_many_pings_are_answered_in_few_writes(server: RealtimeServer) -> None:
    async with connected(server.port) as busy:
        sent = [server.metrics.bytes_sent]
        busy.writer.write(PING * MANY)
        async with asyncio.timeout(30):
            while sent[-1] < sent[0] + 2 * MANY:
                await asyncio.sleep(0)
                sent.append(server.metrics.bytes_sent)
        steps = [after - before for before, after in itertools.pairwise(sent) if after > before]

        assert max(steps) <= 2 * 2 * FRAMES_AT_ONCE
        assert len(steps) < MANY / 4
        assert [await busy.frame() for _ in range(MANY)] == [(10, b"")] * MANY


async def test_a_connection_waiting_for_its_turn_can_be_closed(server: RealtimeServer) -> None:
    async with connected(server.port) as busy, connected(server.port) as other:
        busy.send_frame(1, b"")
        busy.writer.write(
            EMPTY_TEXT * MANY + b"\x82\x80\0\0\0\0"
        )  # binary, behind all others: refused when it is its turn
        closed = await busy.closed()

        assert closed.code == 1003
        assert server.metrics.messages_received == MANY + 1
        assert await other.is_quiet()


async def test_requests_keep_their_order_across_turns(server: RealtimeServer) -> None:
    async with connected(server.port) as busy:
        for number in range(10 * FRAMES_AT_ONCE):
            busy.send("pusher:subscribe", {"channel": f"c{number}"})
        answers = [(await busy.receive())["channel"] for _ in range(10 * FRAMES_AT_ONCE)]

        assert answers == [f"c{number}" for number in range(10 * FRAMES_AT_ONCE)]


async def test_requests_beyond_the_limit_are_read_later() -> None:
    between = Between()
    async with realtime_server(engines=between.engines()) as server, connected(server.port) as busy:
        between.joining.shut()
        for number in range(600):
            busy.send("pusher:subscribe", {"channel": f"c{number}"})
        await eventually(lambda: between.joining.waiting)
        for _ in range(50):
            await asyncio.sleep(0)
        between.joining.open()
        answers = [(await busy.receive())["channel"] for _ in range(600)]

        assert answers == [f"c{number}" for number in range(600)]


async def test_a_connection_has_at_most_a_thousand_channels_by_default(
    server: RealtimeServer,
) -> None:
    async with connected(server.port) as client:
        for number in range(1_001):
            client.send("pusher:subscribe", {"channel": f"c{number}"})
        for _ in range(1_000):
            await client.expect("pusher_internal:subscription_succeeded")
        refused = await client.expect("pusher:subscription_error")

        assert refused["channel"] == "c1000"
        assert refused["data"]["type"] == "LimitReached"


async def test_a_connection_leaves_many_channels_a_few_per_turn(server: RealtimeServer) -> None:
    async with connected(server.port) as client:
        for number in range(5 * AT_ONCE):
            client.send("pusher:subscribe", {"channel": f"c{number}"})
        for _ in range(5 * AT_ONCE):
            await client.expect("pusher_internal:subscription_succeeded")
    left = [len(await server.node.presence.channels("1001"))]
    async with asyncio.timeout(30):
        while left[-1]:
            await asyncio.sleep(0)
            left.append(len(await server.node.presence.channels("1001")))

    assert left[0] == 5 * AT_ONCE
    assert max(before - after for before, after in itertools.pairwise(left)) <= AT_ONCE
    assert not server._hub.tenant("1001").channels
    assert server._hub.tenant("1001").subscriptions == 0


async def test_a_users_many_connections_are_closed_a_few_per_turn(
    server: RealtimeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("smartlink.server.runtime.eager.AT_ONCE", 2)
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(connected(server.port)) for _ in range(9)]
        for client in clients:
            await client.sign_in("7")
        ending = asyncio.ensure_future(call(server.port, "POST", "/apps/1001/users/7/terminate_connections"))
        left = [9]
        async with asyncio.timeout(30):
            while left[-1]:
                await asyncio.sleep(0)
                left.append(len(server._hub))
        await ending

        assert max(before - after for before, after in itertools.pairwise(left)) <= 2
        assert {(await client.closed()).code for client in clients} == {4009}


async def test_a_long_list_of_channels_is_built_a_few_per_turn(
    server: RealtimeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("smartlink.server.transports.http.channels.AT_ONCE", 10)
    for number in range(100):
        await server.node.presence.join("1001", f"c{number}", "1.1", None)
    listing = list_channels(server.node, an_app(), {})
    for _ in range(10):
        listing.send(None)
    with pytest.raises(StopIteration) as ended:
        listing.send(None)

    assert len(json.loads(ended.value.value.body)["channels"]) == 100


async def test_only_a_few_pipelined_requests_are_answered_per_turn(server: RealtimeServer) -> None:
    async with raw(server.port) as busy:
        busy.writer.write(b"GET /apps/none/events HTTP/1.1\r\nHost: x\r\n\r\n" * MAX_PIPELINED)
        seen = [0]
        async with asyncio.timeout(30):
            while seen[-1] < MAX_PIPELINED:
                await asyncio.sleep(0)
                seen.append(server.metrics.http_requests)

            assert max(after - before for before, after in itertools.pairwise(seen)) <= 2 * REQUESTS_AT_ONCE
            for _ in range(MAX_PIPELINED):
                assert b" 404 " in await busy.reader.readuntil(b"}")
            busy.writer.write(b"GET /up HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b" 200 " in await busy.reader.readuntil(b"}")
