"""The PyPI package `pusher`, unmodified, as publisher."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pusher
import pytest

from kit.client import connected
from kit.realtime import APP_ID, KEY, SECRET, realtime_server
from smartlink.protocol.signing import sign_webhook
from smartlink.server.run.lifecycle import RealtimeServer

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")


@pytest.fixture
async def server() -> AsyncIterator[RealtimeServer]:
    async with realtime_server() as running:
        yield running


@pytest.fixture
def official(server: RealtimeServer) -> Any:
    return pusher.Pusher(
        app_id=APP_ID, key=KEY, secret=SECRET, host="127.0.0.1", port=server.port, ssl=False, timeout=10
    )


async def blocking(call: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    return await asyncio.to_thread(call, *arguments, **named)


async def test_it_triggers_on_several_channels_and_excludes_one_socket(server: RealtimeServer, official: Any) -> None:
    async with connected(server.port) as one, connected(server.port) as two:
        await one.subscribe("a")
        await two.subscribe("b")
        await blocking(official.trigger, ["a", "b"], "e", {"žluť": "😀"}, one.socket_id)

        assert json.loads((await two.receive())["data"]) == {"žluť": "😀"}
        assert await one.is_quiet()


async def test_it_triggers_batches(server: RealtimeServer, official: Any) -> None:
    async with connected(server.port) as client:
        await client.subscribe("a")
        await blocking(official.trigger_batch, [{"channel": "a", "name": str(n), "data": {"n": n}} for n in range(10)])

        assert [(await client.receive())["event"] for _ in range(10)] == [str(n) for n in range(10)]


async def test_its_signatures_and_queries_are_accepted(server: RealtimeServer, official: Any) -> None:
    async with connected(server.port) as client:
        member = {"user_id": "7", "user_info": {"name": "Ana"}}
        for channel, data in (("private-a", None), ("presence-a", member)):
            signed = official.authenticate(channel, client.socket_id, data)
            client.send("pusher:subscribe", {"channel": channel} | signed)
            await client.expect("pusher_internal:subscription_succeeded")

        assert set((await blocking(official.channels_info))["channels"]) == {"private-a", "presence-a"}
        infos = await blocking(official.channels_info, "presence-", ["user_count"])
        assert infos == {"channels": {"presence-a": {"user_count": 1}}}
        info = await blocking(official.channel_info, "presence-a", ["user_count", "subscription_count"])
        assert info == {"occupied": True, "user_count": 1, "subscription_count": 1}
        assert await blocking(official.users_info, "presence-a") == {"users": [{"id": "7"}]}
        await blocking(official.terminate_user_connections, "7")
        assert (await client.closed()).code == 4009


async def test_it_maps_the_servers_errors(official: Any) -> None:
    from pusher.errors import PusherBadRequest

    with pytest.raises(PusherBadRequest):
        await blocking(official.channel_info, "chat", ["user_count"])


def test_it_accepts_the_servers_webhooks() -> None:
    import time

    official = pusher.Pusher(app_id=APP_ID, key=KEY, secret=SECRET)
    body = json.dumps({"time_ms": int(time.time() * 1000), "events": []})

    assert official.validate_webhook(KEY, sign_webhook(SECRET, body.encode()), body)["events"] == []
