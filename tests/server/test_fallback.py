"""The HTTP fallback over real sockets: streams, polls and sends."""

from __future__ import annotations

import asyncio
import json

import pytest

from kit.client import connected
from kit.engines import Between
from kit.realtime import KEY, call, realtime_server
from kit.waiting import LIMIT_S, eventually
from kit.xhr import XhrClient, request, session_name
from smartlink.server.run.lifecycle import RealtimeServer

KINDS = pytest.mark.parametrize("is_poll", [False, True], ids=["streaming", "polling"])


async def publish(port: int, channel: str, data: str = "hello", name: str = "e") -> None:
    body = json.dumps({"name": name, "channel": channel, "data": data}).encode()
    assert (await call(port, "POST", "/apps/1001/events", body)).status_code == 200


@KINDS
@pytest.mark.parametrize("path", ["", "/pusher"])
async def test_a_client_subscribes_receives_and_sends(server: RealtimeServer, is_poll: bool, path: str) -> None:
    async with XhrClient(server.port, is_poll=is_poll, path=path) as client, connected(server.port) as other:
        await client.subscribe("private-room")
        await other.subscribe("private-room")
        await publish(server.port, "private-room")
        assert (await client.expect("e"))["data"] == "hello"
        await client.send("client-typing", {"n": 1}, channel="private-room")
        await other.expect("e")
        assert (await other.expect("client-typing"))["data"] == {"n": 1}
        other.send("client-typing", {"n": 2}, channel="private-room")

        assert (await client.expect("client-typing"))["data"] == {"n": 2}


@KINDS
async def test_nothing_is_lost_between_two_responses(server: RealtimeServer, is_poll: bool) -> None:
    async with XhrClient(server.port, is_poll=is_poll) as client:
        await client.subscribe("room")
        data = "ö😀" * 1_000
        for number in range(100):
            await publish(server.port, "room", data, str(number))
        received = [(await client.receive())["event"] for _ in range(100)]

        assert received == [str(number) for number in range(100)]
        assert client.streams > 1


async def test_a_stream_ends_with_the_line_that_fills_it(server: RealtimeServer) -> None:
    async with XhrClient(server.port) as client:
        await client.subscribe("room")
        first = client.answer
        assert first is not None
        for number in range(40):
            await publish(server.port, "room", "x" * 10_000, str(number))
        while (line := await first.line()) is not None:
            last = line

        assert first.size - len(last) - 1 <= 262_144 < first.size


@KINDS
async def test_a_client_that_leaves_is_removed_at_once(server: RealtimeServer, is_poll: bool) -> None:
    async with connected(server.port) as other:
        await other.subscribe("presence-a", {"user_id": "1"})
        async with XhrClient(server.port, is_poll=is_poll) as client:
            await client.subscribe("presence-a", {"user_id": "2"})
            await other.expect("pusher_internal:member_added")
            await client.ask() if is_poll else None
        await other.expect("pusher_internal:member_removed")
        await client.post(b"[]", status=404)

    await eventually(lambda: server.metrics.connections_closed == 2)
    assert await server.node.presence.channels("1001") == {}


async def test_a_client_that_stops_requesting_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smartlink.server.transports.fallback.link.REOPENED_S", 0.5)
    monkeypatch.setattr("smartlink.server.transports.fallback.link.FIRST_REOPENED_S", 0.5)
    async with realtime_server() as server, XhrClient(server.port, is_poll=True):
        await eventually(lambda: server.metrics.connections_closed == 1)


@KINDS
async def test_idle_streams_get_heartbeats(monkeypatch: pytest.MonkeyPatch, is_poll: bool) -> None:
    monkeypatch.setattr("smartlink.server.transports.fallback.link.HELD_S", 0.5)
    async with realtime_server() as server, XhrClient(server.port, is_poll=is_poll) as client:
        assert await client.line() == "h"
        assert await client.line() == "h"


@KINDS
async def test_a_client_may_ask_whether_it_is_still_connected(server: RealtimeServer, is_poll: bool) -> None:
    async with XhrClient(server.port, is_poll=is_poll) as client:
        await client.post(b"[]")
        assert await client.line() == "a[]"


@KINDS
async def test_a_silent_client_is_pinged_and_then_ended(is_poll: bool) -> None:
    async with realtime_server(reverb_app_ping_interval=1) as server:
        async with XhrClient(server.port, is_poll=is_poll) as client:
            await client.send("pusher:ping", {})  # who never sends anything is ended sooner
            await client.expect("pusher:pong")
            line = await client.line()
            assert "pusher:ping" in line
            if is_poll:
                answer = await client.ask()  # asking is a sign of life
                assert "pusher:ping" in (await answer.lines())[0]
            else:
                assert "4201" in await client.line()
                assert (await client.line()).startswith("c[4201,")
                client.is_over = True


@KINDS
async def test_a_newer_response_ends_the_older(server: RealtimeServer, is_poll: bool) -> None:
    async with XhrClient(server.port, is_poll=is_poll) as client:
        older = client.answer if not is_poll else await client.ask()
        verb = "xhr" if is_poll else "xhr_streaming"
        async with request(server.port, f"{client.base}/{verb}?protocol=7") as newer:
            assert older is not None
            assert await older.lines() == []
            await client.send("pusher:ping", {})

            assert "pusher:pong" in (await newer.line() or "")


@KINDS
async def test_the_server_ends_a_connection(server: RealtimeServer, is_poll: bool) -> None:
    async with XhrClient(server.port, is_poll=is_poll) as client:
        await client.subscribe("presence-a", {"user_id": "7"})
        asked = asyncio.create_task(client.closed())
        await call(server.port, "POST", "/apps/1001/users/7/terminate_connections", b"{}")

        assert (await asked).code == 4009


@KINDS
async def test_a_stop_tells_fallback_clients_to_reconnect(is_poll: bool) -> None:
    async with realtime_server() as server:
        async with XhrClient(server.port, is_poll=is_poll) as client:
            asked = asyncio.create_task(client.closed())
            await asyncio.sleep(0)
            await server.stop()

            assert (await asked).code == 4200


@pytest.mark.parametrize(
    ("settings", "key", "query", "code"),
    [
        ({}, "nobody", "protocol=7", 4001),
        ({}, KEY, "protocol=9", 4007),
        ({"reverb_app_max_connections": 1}, KEY, "protocol=7", 4100),
    ],
)
@KINDS
async def test_a_refused_client_is_told_why(
    settings: dict[str, int], key: str, query: str, code: int, is_poll: bool
) -> None:
    async with realtime_server(**settings) as server, connected(server.port):
        verb = "xhr" if is_poll else "xhr_streaming"
        async with request(server.port, f"/pusher/app/{key}/{session_name()}/{verb}?{query}") as answer:
            opened, said, closed = await answer.lines()

        assert opened == "o"
        assert json.loads(json.loads(said[1:])[0])["data"]["code"] == code
        assert json.loads(closed[1:])[0] == code
        assert server.metrics.connections_opened == 1


async def test_connection_attempts_per_address_are_limited() -> None:
    async with realtime_server(reverb_server_connects_per_second=1) as server:
        ends = []
        for _ in range(15):  # ten times the rate at once
            async with request(server.port, f"/app/{KEY}/{session_name()}/xhr?protocol=7") as answer:
                ends.append((await answer.lines())[-1])

        assert "c[4100" in ends[-1]
        assert "c[4100" not in ends[9]
        assert set(server.metrics.refusals) == {"over_capacity"}


async def test_a_session_counts_as_a_connection() -> None:
    async with realtime_server(reverb_app_max_connections=1) as server:
        async with XhrClient(server.port), XhrClient(server.port) as second:
            assert (await second.closed()).code == 4100
            assert (await call(server.port, "GET", "/apps/1001/connections")).json() == {"connections": 1}
            assert (await call(server.port, "GET", "/apps/1001/channels")).json() == {"channels": {}}


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{}", 400),
        (b'"text"', 400),
        (b"[1]", 400),
        (b'["\xff"]', 400),
        (b'["\\ud800"]', 400),
        (b'["\\udc00"]', 400),
        (b"[" * 50_000, 400),
        (json.dumps(["x"] * 101).encode(), 413),
        (b" " * 262_145, 413),
    ],
)
async def test_a_body_that_is_not_a_list_of_strings_is_refused(
    server: RealtimeServer, body: bytes, status: int
) -> None:
    async with XhrClient(server.port) as client:
        await client.post(body, status=status)
        await client.subscribe("room")


async def test_a_message_that_is_too_large_ends_the_connection(server: RealtimeServer) -> None:
    async with XhrClient(server.port) as client:
        await client.post(json.dumps(["x" * 20_000, "{}"]).encode())

        assert (await client.closed()).code == 1009


async def test_malformed_messages_are_answered_as_over_a_websocket(server: RealtimeServer) -> None:
    async with XhrClient(server.port) as client:
        await client.post(b'["{", "[]", "\\"\\u0000\\""]')
        for _ in range(3):
            await client.expect("pusher:error")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", f"/pusher/app/{KEY}/1/abcdefgh/xhr_streaming", 405),
        ("PUT", f"/app/{KEY}/1/abcdefgh/xhr_send", 405),
        ("POST", f"/app/{KEY}/1/abcdefgh/xhr_send", 404),
        ("POST", "/app/nobody/1/abcdefgh/xhr_send", 404),
        ("POST", f"/app/{KEY}/1000/abcdefgh/xhr", 404),
        ("POST", f"/app/{KEY}/1/abcdefghi/xhr", 404),
        ("POST", f"/app/{KEY}/1/..%2f..%2fab/xhr", 404),
        ("POST", f"/app/{KEY}/1/x/y/abcdefgh/xhr_send", 404),
    ],
)
async def test_other_requests_are_refused(server: RealtimeServer, method: str, path: str, status: int) -> None:
    async with request(server.port, f"{path}?protocol=7", b"[]", method=method) as answer:
        assert answer.status == status
        assert json.loads(await answer.body())["error"]
    assert server.metrics.connections_opened == 0


@pytest.mark.parametrize(
    ("allowed", "origin", "status", "told"),
    [
        (("*",), "https://a.example", 204, "*"),
        (("https://a.example",), "https://a.example", 204, "https://a.example"),
        (("https://a.example",), "https://b.example", 403, None),
    ],
)
async def test_pages_of_allowed_origins_may_call(
    allowed: tuple[str, ...], origin: str, status: int, told: str | None
) -> None:
    async with realtime_server(reverb_app_allowed_origins=allowed) as server:
        for verb in ("xhr_streaming", "xhr", "xhr_send"):
            path = f"/pusher/app/{KEY}/1/abcdefgh/{verb}"
            asks = {"Origin": origin, "Access-Control-Request-Method": "POST"}
            async with request(server.port, path, method="OPTIONS", headers=asks) as answer:
                assert answer.status == status
                assert answer.headers.get("access-control-allow-origin") == told
                assert "content-length" not in answer.headers or status != 204
        async with request(server.port, f"/app/{KEY}/1/abcdefgh/xhr?protocol=7", headers={"Origin": origin}) as answer:
            assert answer.status == (200 if told else 403)
            assert answer.headers.get("access-control-allow-origin") == told


async def test_an_http_1_0_proxy_gets_a_stream_without_chunks(server: RealtimeServer) -> None:
    path = f"/app/{KEY}/1/abcdefgh/xhr_streaming?protocol=7"
    async with request(server.port, path, version="1.0") as answer:
        assert "transfer-encoding" not in answer.headers
        assert await answer.line() == "o"
        assert "connection_established" in (await answer.line() or "")


async def test_a_poll_leaves_its_connection_usable(server: RealtimeServer) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    head = f"POST /app/{KEY}/1/abcdefgh/xhr?protocol=7 HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".encode()
    writer.write(head + b"GET /up HTTP/1.1\r\nHost: x\r\n\r\n")
    async with asyncio.timeout(LIMIT_S):
        assert b"connection_established" in await reader.readuntil(b"0\r\n\r\n")
        assert b'{"health":"OK"}' in await reader.readuntil(b"}")
    writer.close()


async def test_a_client_that_reads_nothing_is_cut_as_slow() -> None:
    async with realtime_server(reverb_server_max_backlog_bytes=65_536) as server:
        client = XhrClient(server.port, is_poll=True)
        async with client:
            await client.subscribe("room")
            for _ in range(8):
                await publish(server.port, "room", "x" * 10_000)

            assert (await client.closed()).code == 4100
            assert server.metrics.slow_consumers == 1


async def test_a_join_while_the_presence_store_is_slow_does_not_exceed_the_limit() -> None:
    between = Between()
    async with (
        realtime_server(reverb_app_max_connections=1, engines=between.engines()) as server,
        asyncio.timeout(LIMIT_S),
    ):
        between.joining.shut()
        openings = [
            asyncio.create_task(ask_once(server.port, f"/app/{KEY}/{session_name()}/xhr?protocol=7")) for _ in range(5)
        ]
        await eventually(lambda: between.joining.waiting == 5)
        between.joining.open()
        bodies = [await opening for opening in openings]

        assert sum(b"connection_established" in body for body in bodies) == 1
        assert sum(b"c[4100" in body for body in bodies) == 4
        assert len(server.node.hub) == 1


async def ask_once(port: int, path: str) -> bytes:
    """The whole answer to one request."""
    async with request(port, path) as answer:
        return await answer.body()
