"""Events that an application publishes to Redis in the format of Laravel's redis broadcaster."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest

from kit.client import Client, connected
from kit.realtime import realtime_server
from kit.redis import RedisServer, fresh_prefix, redis_server
from kit.waiting import eventually
from smartlink.server.run.lifecycle import RealtimeServer

PREFIX = "laravel_database_"


@pytest.fixture
async def pair(shared_redis: RedisServer) -> AsyncIterator[tuple[RealtimeServer, RealtimeServer]]:
    """Two nodes that read events of the driver."""
    settings = {
        "redis_url": shared_redis.url,
        "reverb_scaling_enabled": True,
        "reverb_scaling_channel": fresh_prefix(),
        "broadcast_driver": "redis",
        "broadcast_redis_prefix": PREFIX,
    }
    async with realtime_server(**settings) as one, realtime_server(**settings) as two:
        await eventually(lambda: shared_redis.call("PUBSUB", "NUMPAT") == 1)
        await eventually(lambda: count_listeners(shared_redis) == 2)
        yield one, two


def count_listeners(redis: RedisServer) -> int:
    clients = redis.call("CLIENT", "LIST")
    assert isinstance(clients, bytes | str)
    text = clients if isinstance(clients, str) else clients.decode()
    return sum(" psub=1 " in line for line in text.splitlines())


def send(redis: RedisServer, channel: str, payload: object) -> None:
    redis.call("PUBLISH", f"{PREFIX}{channel}", payload if isinstance(payload, bytes) else json.dumps(payload))  # type: ignore[arg-type]


async def test_each_node_delivers_each_event_once_to_its_subscribers(
    shared_redis: RedisServer, pair: tuple[RealtimeServer, RealtimeServer]
) -> None:
    one, two = pair
    async with connected(one.port) as ana, connected(two.port) as ben:
        await ana.subscribe("private-user.1")
        await ben.subscribe("private-user.1")
        send(shared_redis, "private-user.1", {"event": "App\\Events\\Paid", "data": {"sum": "1.00"}, "socket": None})
        send(shared_redis, "private-user.1", {"event": "Text", "data": "as it is", "socket": ana.socket_id})

        for client in (ana, ben):
            message = await client.expect("App\\Events\\Paid")
            assert json.loads(message["data"]) == {"sum": "1.00"}
        assert (await ben.expect("Text"))["data"] == "as it is"
        assert await ana.is_quiet()
        assert await ben.is_quiet()
        assert (one.metrics.ingested, two.metrics.ingested) == (2, 2)


HOSTILE: list[tuple[str, object]] = [
    ("chat", b""),
    ("chat", b"\x80\x04pickle"),
    ("chat", b"[]"),
    ("chat", {}),
    ("chat", {"event": 7}),
    ("chat", {"event": "pusher:connection_established", "data": {}}),
    ("chat", {"event": "pusher_internal:member_added", "data": {}}),
    ("chat", {"event": "x" * 201}),
    ("chat", {"event": "e", "data": "x" * 11_000}),
    ("chat", {"event": "e", "data": {}, "socket": "1.1:private-x"}),
    ("chat", b'{"event":"e","data":"\xff"}'),
    ("chat", b'{"event":"e","data":' + b"[" * 9_000 + b"]" * 9_000 + b"}"),
    ("not a channel", {"event": "e"}),
    ("x" * 201, {"event": "e"}),
    ("", {"event": "e"}),
]


async def test_invalid_events_are_dropped_and_counted(
    shared_redis: RedisServer, pair: tuple[RealtimeServer, RealtimeServer]
) -> None:
    one, _ = pair
    async with connected(one.port) as client:
        await client.subscribe("chat")
        for channel, payload in HOSTILE:
            send(shared_redis, channel, payload)
        send(shared_redis, "chat", {"event": "e", "data": {"a": 1}})

        assert json.loads((await client.expect("e"))["data"]) == {"a": 1}
        assert one.metrics.ingest_dropped == len(HOSTILE)


async def test_a_single_node_reads_events_too_and_reconnects_after_an_outage() -> None:
    with redis_server() as redis:
        async with realtime_server(redis_url=redis.url, reverb_redis_ingest=True) as server:
            async with connected(server.port) as client:
                await client.subscribe("chat")
                await eventually(lambda: count_listeners(redis) == 1)
                await heard(client, redis, "one")
                redis.kill()
                redis.start()
                await eventually(lambda: count_listeners(redis) == 1)
                await heard(client, redis, "two")


async def heard(client: Client, redis: RedisServer, data: str) -> None:
    redis.call("PUBLISH", "chat", json.dumps({"event": "e", "data": data}))
    assert (await client.expect("e"))["data"] == data


async def test_an_event_larger_than_its_channel_allows_is_dropped(shared_redis: RedisServer) -> None:
    settings = {
        "redis_url": shared_redis.url,
        "broadcast_driver": "redis",
        "broadcast_redis_prefix": PREFIX,
        "reverb_app_channels": '[{"pattern": "small", "max_event_bytes": 5}, {"pattern": "large", "max_event_bytes": 20000}]',
    }
    async with realtime_server(**settings) as server, connected(server.port) as client:
        await eventually(lambda: count_listeners(shared_redis) == 1)
        for channel in ("small", "large"):
            await client.subscribe(channel)
        send(shared_redis, "small", {"event": "e", "data": "123456"})
        send(shared_redis, "small", {"event": "e", "data": "12345"})
        send(shared_redis, "large", {"event": "e", "data": "x" * 20_000})

        assert (await client.expect("e"))["data"] == "12345"
        assert (await client.expect("e"))["data"] == "x" * 20_000
        assert server.metrics.ingest_dropped == 1
