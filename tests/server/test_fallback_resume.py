"""Clients of the HTTP fallback resume their sessions like those over WebSockets, and change from one to the other."""

from __future__ import annotations

import json
import secrets

import pytest

from kit.client import Client, connected
from kit.cluster import cluster
from kit.realtime import KEY, call, realtime_server
from kit.waiting import eventually
from kit.xhr import XhrClient, request
from smartlink.server.run.lifecycle import RealtimeServer

KINDS = pytest.mark.parametrize("is_poll", [False, True], ids=["streaming", "polling"])


async def publish(port: int, number: int) -> None:
    body = json.dumps({"name": "news", "channel": "private-room", "data": str(number)}).encode()
    assert (await call(port, "POST", "/apps/1001/events", body)).status_code == 200


def session_path() -> str:
    return f"/s/{secrets.token_urlsafe(24)}"


async def replayed(client: Client | XhrClient) -> list[int]:
    await client.subscribe("private-room")
    count = json.loads((await client.expect("pusher:resume_success"))["data"])["replayed"]
    return [int((await client.expect("news"))["data"]) for _ in range(count)]


async def until_gone(server: RealtimeServer, count: int = 1) -> None:
    await eventually(lambda: server.metrics.connections_closed == count)


@KINDS
@pytest.mark.parametrize("below", ["", "/pusher"])
async def test_a_client_that_comes_back_gets_what_it_missed(is_poll: bool, below: str) -> None:
    async with realtime_server() as server:
        path = session_path() + below
        async with XhrClient(server.port, is_poll=is_poll, path=path) as client:
            await client.subscribe("private-room")
        await until_gone(server)
        for number in range(3):
            await publish(server.port, number)
        async with XhrClient(server.port, is_poll=is_poll, path=path) as client:
            assert await replayed(client) == [0, 1, 2]
            await publish(server.port, 3)
            assert (await client.expect("news"))["data"] == "3"


async def test_a_session_goes_on_over_the_fallback_and_back() -> None:
    async with realtime_server() as server:
        path = session_path()
        token = path.removeprefix("/s/")
        async with connected(server.port, session=token) as client:
            await client.subscribe("private-room")
        await publish(server.port, 0)
        async with XhrClient(server.port, path=path) as over_http:
            assert await replayed(over_http) == [0]
        await until_gone(server, 2)
        async with connected(server.port, session=token) as client:
            assert await replayed(client) == [0], "not confirmed, so it comes again"


@KINDS
async def test_what_the_page_has_handled_is_not_sent_again(is_poll: bool) -> None:
    async with realtime_server() as server:
        path = session_path()
        async with XhrClient(server.port, is_poll=is_poll, path=path) as client:
            await client.subscribe("private-room")
            await publish(server.port, 0)
            await client.expect("news")
            resumption = server.node.resumption
            [session] = [each for of_app in resumption._sessions.values() for each in of_app.values()]
            before = resumption.positions(session)
            while "pusher:ping" not in (line := await client.line()):
                assert "news" not in line
            await client.send("pusher:pong", {})
            await eventually(lambda: resumption.positions(session) != before)
        await until_gone(server)
        async with XhrClient(server.port, is_poll=is_poll, path=path) as client:
            assert await replayed(client) == []


async def test_over_nodes_a_session_goes_on_where_its_client_comes_back() -> None:
    async with cluster(2) as nodes:
        one, two = nodes.nodes
        path = session_path()
        async with XhrClient(one.port, two.port, path=path) as client:
            await client.subscribe("private-room")
        await eventually(lambda: one.metrics.connections_closed + two.metrics.connections_closed == 1)
        await publish(one.port, 0)
        async with XhrClient(two.port, one.port, path=path) as client:
            assert await replayed(client) == [0]


@pytest.mark.parametrize("token", ["short", "x" * 65, "a" * 30 + ".", ""])
async def test_a_malformed_token_is_4005(server: RealtimeServer, token: str) -> None:
    async with request(server.port, f"/s/{token}/app/{KEY}/1/abcdefgh/xhr_streaming?protocol=7") as answer:
        lines = await answer.lines()
    assert lines[0] == "o"
    assert lines[-1].startswith("c[4005,")
    assert server.metrics.connections_opened == 0
