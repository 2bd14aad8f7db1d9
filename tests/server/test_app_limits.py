"""Limits that an application sets below the protocol's, and the errors beyond them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kit.client import connected
from kit.realtime import an_app, call, realtime_server
from kit.waiting import eventually_told
from smartlink.server.run.lifecycle import RealtimeServer

EVENTS, BATCH = "/apps/1001/events", "/apps/1001/batch_events"


async def post(server: RealtimeServer, path: str, **body: Any) -> tuple[int, str]:
    answer = await call(server.port, "POST", path, json.dumps(body).encode())
    return answer.status_code, answer.json().get("error", "")


def event(**more: Any) -> dict[str, Any]:
    return {"name": "e", "channel": "chat", "data": ""} | more


async def test_too_long_a_batch_is_refused_as_batch_too_large(server: RealtimeServer) -> None:
    status, error = await post(server, BATCH, batch=[event()] * 11)

    assert status == 400
    assert error.startswith("Batch too large")


async def test_too_large_an_event_is_refused_alone_and_in_a_batch(server: RealtimeServer) -> None:
    large = event(data="x" * 10_241)
    for path, body in ((EVENTS, large), (BATCH, {"batch": [event(), large]})):
        status, error = await post(server, path, **body)

        assert status == 413
        assert "content of this event" in error
        assert "10241 bytes" in error
        assert "10240" in error


async def test_size_limits_below_a_kilobyte_are_exact() -> None:
    limits = {"reverb_app_max_event_size": 10, "reverb_app_max_message_size": 100, "reverb_app_max_user_info_size": 4}
    async with realtime_server(**limits, reverb_max_request_size=400) as server, connected(server.port) as client:
        assert (await post(server, EVENTS, **event(data="x" * 10)))[0] == 200
        assert (await post(server, EVENTS, **event(data="x" * 11)))[0] == 413
        assert (await post(server, EVENTS, **event(data="x" * 400)))[0] == 413
        client.send_text(" " * 100)
        assert await client.error() is None
        client.send_text(" " * 101)
        assert (await client.closed()).code == 1009


async def test_an_app_may_limit_names_below_the_protocols_maximum() -> None:
    lengths = {"reverb_app_max_channel_name_length": 10, "reverb_app_max_event_name_length": 10}
    async with realtime_server(**lengths) as server, connected(server.port) as client, connected(server.port) as other:
        for channel in ("c" * 10, "private-ab"):
            await client.subscribe(channel)
            await other.subscribe(channel)
        client.send("pusher:subscribe", {"channel": "c" * 11})
        refusal = await client.expect("pusher:subscription_error")
        assert (refusal["channel"], refusal["data"]["type"], "1 to 10" in refusal["data"]["error"]) == (
            "c" * 11, "InvalidChannel", True,
        )  # fmt: skip
        client.send("client-abcd", {}, channel="private-ab")
        assert await client.error() == 4301
        client.send("client-abc", {}, channel="private-ab")
        await other.expect("client-abc")

        assert (await post(server, EVENTS, **event(channel="c" * 10, name="e" * 10)))[0] == 200
        assert (await post(server, EVENTS, **event(channel="c" * 11)))[0] == 400
        assert (await post(server, EVENTS, **event(name="e" * 11)))[0] == 400
        await client.expect("e" * 10)
        await client.sign_in("somebody-with-a-long-id")
        await client.subscribe("#server-to-user-somebody-with-a-long-id")


async def test_with_all_public_channels_accept_client_events_too() -> None:
    async with realtime_server(reverb_app_accept_client_events_from="all") as server, connected(server.port) as client:
        async with connected(server.port) as other, connected(server.port) as stranger:
            for channel in ("chat", "cache-chat", "private-encrypted-a"):
                await other.subscribe(channel)
                await client.subscribe(channel)
                if channel == "cache-chat":
                    await other.expect("pusher:cache_miss")
                    await client.expect("pusher:cache_miss")
            for channel in ("chat", "cache-chat"):
                client.send("client-x", {"n": 1}, channel=channel)
                assert await other.receive() == {"event": "client-x", "channel": channel, "data": {"n": 1}}
            client.send("client-x", {}, channel="private-encrypted-a")
            assert await client.error() == 4301
            stranger.send("client-x", {}, channel="chat")
            assert await stranger.error() == 4301
            assert await other.is_quiet()
            assert await client.is_quiet()


@pytest.mark.parametrize("settings", [{}, {"reverb_app_accept_client_events_from": "members"}])
async def test_public_channels_refuse_client_events_unless_all_is_set(settings: dict[str, Any]) -> None:
    async with realtime_server(**settings) as server, connected(server.port) as client:
        await client.subscribe("chat")
        client.send("client-x", {}, channel="chat")

        assert await client.error() == 4301


async def test_counts_can_be_included_by_default_without_refusing_attributes() -> None:
    async with realtime_server(an_app(lists_counts=True)) as server, connected(server.port) as client:
        await client.subscribe("chat")
        await client.subscribe("presence-room", {"user_id": "7"})

        async def get(path: str, **params: str) -> Any:
            answer = await call(server.port, "GET", f"/apps/1001{path}", params=params)
            assert answer.status_code == 200
            return answer.json()

        listed = {"occupied": True, "subscription_count": 1}
        assert await get("/channels") == {"channels": {"chat": listed, "presence-room": listed}}
        assert await get("/channels", info="user_count") == {
            "channels": {"chat": listed, "presence-room": listed | {"user_count": 1}}
        }
        assert await get("/channels/chat", info="user_count,cache") == {"occupied": True, "subscription_count": 1}
        assert await get("/channels/presence-room") == {"occupied": True, "subscription_count": 1, "user_count": 1}
        client.send("pusher:unsubscribe", {"channel": "chat"})

        async def is_vacated() -> bool:
            return bool(await get("/channels/chat") == {"occupied": False, "subscription_count": 0})

        await eventually_told(is_vacated)
