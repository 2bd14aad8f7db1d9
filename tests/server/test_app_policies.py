"""An application's rules: origins, sizes, numbers; and how refusals close connections."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from kit.client import connected, raw
from kit.realtime import APP_ID, KEY, SECRET, an_app, call, realtime_server
from kit.simultaneous_joins import subscription
from kit.waiting import LIMIT_S, eventually
from smartlink.server.run.lifecycle import RealtimeServer
from smartlink.server.transports.admission import is_allowed_origin

EVENT = {"name": "e", "channel": "chat", "data": "{}"}


async def post(server: RealtimeServer, path: str, body: Any, **more: Any) -> Any:
    return await call(server.port, "POST", f"/apps/{APP_ID}{path}", json.dumps(body).encode(), **more)


@pytest.mark.parametrize(
    ("origin", "allowed", "is_allowed"),
    [
        ("https://example.com", "https://example.com", True),
        ("https://example.com:443", "https://example.com", True),
        ("https://example.com", "https://example.com:443", True),
        ("http://example.com", "http://example.com:80", True),
        ("https://EXAMPLE.com", "https://example.com", True),
        ("https://example.com:8443", "https://example.com:8443", True),
        ("http://[::1]:8080", "http://[::1]:8080", True),
        ("https://anything.at.all", "*", True),
        ("null", "*", True),
        ("https://example.com", "example.com", True),
        ("http://example.com:8080", "example.com", True),
        ("https://a.example.com", "*.example.com", True),
        ("https://a.b.example.com", "*.example.com", True),
        ("https://a.example.com", "https://*.example.com", True),
        ("http://example.com", "https://example.com", False),
        ("https://example.com:8443", "https://example.com", False),
        ("https://a.example.com", "https://example.com", False),
        ("https://a.example.com", "example.com", False),
        ("https://example.com", "*.example.com", False),
        ("https://example.com.evil.org", "https://example.com", False),
        ("https://evilexample.com", "*.example.com", False),
        ("https://evil.org/https://example.com", "example.com", False),
        ("https://example.com@evil.org", "example.com", False),
        ("https://user@example.com", "example.com", False),
        ("http://a.example.com", "https://*.example.com", False),
        ("null", "example.com", False),
        ("", "example.com", False),
        ("https://", "example.com", False),
        ("https://example.com:99999", "example.com", False),
        ("https://ехample.com", "example.com", False),
        ("https://example.com.", "example.com", False),
    ],
)
def test_origins_are_compared_as_a_whole(origin: str, allowed: str, is_allowed: bool) -> None:
    assert is_allowed_origin(origin, ("https://other.org", allowed)) is is_allowed


async def test_a_page_of_another_origin_is_refused_and_does_not_reconnect() -> None:
    async with realtime_server(reverb_app_allowed_origins="https://example.com,*.example.org") as server:
        for origin in ("https://example.com", "https://a.example.org"):
            async with connected(server.port, headers=f"Origin: {origin}\r\n") as client:
                assert client.socket_id
        for origin in ("https://evil.org", "null", "http://example.com"):
            async with raw(server.port) as client:
                # Refused before anything else is looked at, as the missing protocol here.
                await client.handshake(f"/app/{KEY}", f"Origin: {origin}\r\n")
                assert await client.error() == 4009
                assert (await client.closed()).code == 4009
        async with connected(server.port) as no_browser:
            assert no_browser.socket_id
        await eventually(lambda: len(server.node.hub) == 0)


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/app/unknown?protocol=7", 4001),
        ("/app/?protocol=7", 4001),
        ("/app/off-key?protocol=7", 4003),
        ("/", 4005),
        ("/apps/1001/events", 4005),
        (f"/ap/{KEY}?protocol=7", 4005),
        (f"/app/{KEY}?protocol=7&version=%00", 4006),
        (f"/app/{KEY}?protocol=7&version={'9' * 65}", 4006),
        (f"/app/{KEY}?protocol=4", 4007),
        (f"/app/{KEY}?protocol=8", 4007),
        (f"/app/{KEY}?protocol=seven", 4007),
    ],
)
async def test_a_refusal_sends_error_and_close_code_and_ignores_later_input(path: str, code: int) -> None:
    off = type(an_app())("2", "off-key", "secret", is_enabled=False)
    async with realtime_server(an_app(), off) as server, raw(server.port) as client:
        assert (await client.handshake(path)).startswith("HTTP/1.1 101 ")
        client.send("pusher:subscribe", {"channel": "chat"})

        assert await client.error() == code
        assert (await client.closed()).code == code
        assert len(server.node.hub) == 0
        assert (await call(server.port, "GET", "/apps/1001/channels")).json() == {"channels": {}}


@pytest.mark.parametrize("version", ["8.6.0", "2.2.0-rc1", "7.0.3+build", "v1"])
async def test_versions_of_real_clients_are_accepted(server: RealtimeServer, version: str) -> None:
    async with connected(server.port, query=f"protocol=7&client=js&version={version}&flash=false") as client:
        assert client.socket_id


async def test_another_upgrade_is_answered_in_plain_http(server: RealtimeServer) -> None:
    async with raw(server.port) as client:
        client.writer.write(
            b"GET /up HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings, close\r\nUpgrade: h2c\r\n"
            b"HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n\r\n"
        )
        async with asyncio.timeout(LIMIT_S):
            answer = await client.reader.read()

    assert answer.count(b"HTTP/1.1 ") == 1
    assert answer.startswith(b"HTTP/1.1 200 ")


async def test_a_disabled_application_refuses_its_publishers() -> None:
    async with realtime_server(an_app(is_enabled=False)) as server:
        publish = await post(server, "/events", EVENT)
        read = await call(server.port, "GET", "/apps/1001/channels")
        forged = await post(server, "/events", EVENT, secret="guess")

        assert (publish.status_code, read.status_code, forged.status_code) == (403, 403, 401)


async def test_an_app_sets_its_limits_of_channels_and_events_per_call() -> None:
    async with realtime_server(an_app(max_event_channels=2, max_batch=1)) as server:
        fits = await post(server, "/events", EVENT | {"channels": ["a", "b"]})
        many = await post(server, "/events", EVENT | {"channels": ["a", "b", "c"]})
        one = await post(server, "/batch_events", {"batch": [EVENT]})
        two = await post(server, "/batch_events", {"batch": [EVENT] * 2})

        assert [answer.status_code for answer in (fits, many, one, two)] == [200, 400, 200, 400]
        assert "2" in many.json()["error"]


async def test_calls_can_be_limited_per_second() -> None:
    async with realtime_server(an_app(publishes_per_s=2, reads_per_s=1)) as server:
        publishes = [await post(server, "/events", EVENT) for _ in range(5)]
        reads = [await call(server.port, "GET", "/apps/1001/connections") for _ in range(4)]

        assert {answer.status_code for answer in publishes[:2]} == {200}
        assert 429 in [answer.status_code for answer in publishes[2:]]
        assert reads[0].status_code == 200
        limited = [answer for answer in publishes + reads if answer.status_code == 429]
        assert all(answer.headers["Retry-After"] == "1" for answer in limited)


async def test_the_member_limit_counts_users_not_tabs() -> None:
    async with (
        realtime_server(an_app(max_presence_members=2)) as server,
        connected(server.port) as ana,
        connected(server.port) as tab,
        connected(server.port) as ben,
        connected(server.port) as cleo,
    ):
        await ana.subscribe("presence-a", {"user_id": "1"})
        await ben.subscribe("presence-a", {"user_id": "2"})
        await ana.expect("pusher_internal:member_added")
        await tab.subscribe("presence-a", {"user_id": "1"})
        with pytest.raises(AssertionError, match="LimitReached"):
            await cleo.subscribe("presence-a", {"user_id": "3"})

        assert await ana.is_quiet()
        await post(server, "/events", EVENT | {"channel": "presence-a"})
        assert await cleo.is_quiet()
        count = await call(server.port, "GET", "/apps/1001/channels/presence-a", params={"info": "user_count"})
        assert count.json()["user_count"] == 2


async def test_user_info_has_a_size_limit() -> None:
    async with realtime_server(an_app(max_user_info_bytes=10)) as server, connected(server.port) as client:
        await client.subscribe("presence-a", {"user_id": "1", "user_info": "x" * 8})
        with pytest.raises(AssertionError, match="user_info"):
            await client.subscribe("presence-b", {"user_id": "1", "user_info": "x" * 9})


async def test_channels_per_connection_are_limited() -> None:
    async with realtime_server(an_app(max_channels=2)) as server, connected(server.port) as client:
        await client.subscribe("a")
        await client.subscribe("b")
        with pytest.raises(AssertionError, match="LimitReached"):
            await client.subscribe("c")
        await client.subscribe("b")
        client.send("pusher:unsubscribe", {"channel": "a"})
        await client.subscribe("c")

        listed = await call(server.port, "GET", "/apps/1001/channels")
        assert set(listed.json()["channels"]) == {"b", "c"}


async def test_another_apps_key_is_refused_even_with_a_valid_signature() -> None:
    other = type(an_app())("2", "key2", "secret2")
    async with realtime_server(an_app(), other) as server:
        answer = await post(server, "/events", EVENT, key="key2", secret=SECRET)

        assert answer.status_code == 401


async def test_presence_joins_are_rate_limited_with_an_error() -> None:
    async with (
        realtime_server(an_app(presence_joins_per_s=1)) as server,
        connected(server.port) as watcher,
        connected(server.port) as flapping,
    ):
        await watcher.subscribe("presence-a", {"user_id": "1"})
        refused: dict[str, Any] = {}
        joins = 0
        while not refused:
            flapping.send("pusher:subscribe", subscription(flapping, "presence-a", "2"))
            answer = await flapping.receive()
            if answer["event"] == "pusher:subscription_error":
                refused = answer
                break
            joins += 1
            assert joins < 500
            flapping.send("pusher:unsubscribe", {"channel": "presence-a"})
        assert joins >= 10
        assert refused["data"]["type"] == "LimitReached"
        assert "1 joins of presence channels a second" in refused["data"]["error"]
        # Other channels are nobody's business, and the connection stays.
        await flapping.subscribe("private-a")
        assert await flapping.is_quiet()
