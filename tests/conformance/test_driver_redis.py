"""The redis driver with a real Redis, healthy and failing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from redis.asyncio import Redis

from conformance.driver_promises import envelopes
from kit.redis import RedisServer, redis_server
from kit.waiting import LIMIT_S
from smartlink.broadcasting import BroadcastConfigError, BroadcastUnavailable, Driver, Envelope
from smartlink.broadcasting.drivers.redis import RedisDriver


@pytest.fixture
def service() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@pytest.fixture
async def driver(service: RedisServer) -> AsyncIterator[RedisDriver]:
    driver = RedisDriver(service.url, timeout_s=2)
    yield driver
    await driver.aclose()


class Listener:
    """Hears every channel of a Redis."""

    def __init__(self, pubsub: Any) -> None:
        self._pubsub = pubsub

    async def next(self) -> tuple[str, dict[str, Any]]:
        async with asyncio.timeout(LIMIT_S):
            while True:
                heard = await self._pubsub.get_message(ignore_subscribe_messages=True, timeout=5)
                if heard is not None:
                    return heard["channel"].decode(), json.loads(heard["data"])


@asynccontextmanager
async def listening(service: RedisServer) -> AsyncIterator[Listener]:
    client = Redis.from_url(service.url)
    pubsub = client.pubsub()
    await pubsub.psubscribe("*")
    await pubsub.get_message(timeout=5)
    try:
        yield Listener(pubsub)
    finally:
        await pubsub.aclose()
        await client.aclose()


async def test_events_are_published_in_laravels_format(service: RedisServer, driver: Driver) -> None:
    async with listening(service) as listener:
        await driver.send([Envelope("presence-chat", "App\\Events\\E", '{"text":"🎉"}', "12.34")])

        assert await listener.next() == (
            "presence-chat",
            {"event": "App\\Events\\E", "data": {"text": "🎉"}, "socket": "12.34"},
        )


async def test_without_an_excluded_socket_the_field_is_null(service: RedisServer, driver: Driver) -> None:
    async with listening(service) as listener:
        await driver.send([Envelope("chat", "E", "{}")])

        assert (await listener.next())[1]["socket"] is None


@pytest.mark.parametrize("count", [1, 10, 25])
async def test_order_is_kept(service: RedisServer, driver: Driver, count: int) -> None:
    async with listening(service) as listener:
        await driver.send(envelopes(count))

        assert [(await listener.next())[1]["data"]["n"] for _ in range(count)] == list(range(count))


async def test_the_prefix_is_prepended_to_the_channel(service: RedisServer) -> None:
    driver = RedisDriver(service.url, prefix="laravel_database_")
    async with listening(service) as listener:
        await driver.send([Envelope("private-a", "E", "{}")])

        assert (await listener.next())[0] == "laravel_database_private-a"
    await driver.aclose()


async def test_sending_no_envelopes_needs_no_redis() -> None:
    driver = RedisDriver("redis://127.0.0.1:1/0")

    await driver.send([])
    await driver.aclose()


async def test_an_unreachable_redis_is_unavailable(service: RedisServer, driver: Driver) -> None:
    service.kill()

    with pytest.raises(BroadcastUnavailable, match="redis: ConnectionError"):
        await driver.send(envelopes(1))


async def test_a_redis_that_returns_is_used_again(service: RedisServer, driver: Driver) -> None:
    await driver.send(envelopes(1))
    service.kill()
    with pytest.raises(BroadcastUnavailable):
        await driver.send(envelopes(1))
    service.start()

    await driver.send(envelopes(1))


async def test_a_hanging_redis_times_out(service: RedisServer) -> None:
    driver = RedisDriver(service.url, timeout_s=0.2)
    service.freeze()

    with pytest.raises(BroadcastUnavailable):
        await driver.send(envelopes(1))
    service.thaw()
    await driver.aclose()


async def test_a_wrong_password_is_unavailable_not_refused() -> None:
    with redis_server("--requirepass", "right", password="right") as service:
        driver = RedisDriver(service.url.replace("//", "//:wrong@"))

        with pytest.raises(BroadcastUnavailable, match="REDIS_PASSWORD") as raised:
            await driver.send(envelopes(1))
        assert "wrong" not in str(raised.value).replace("WRONGPASS", "")
        await driver.aclose()


async def test_a_server_that_is_not_redis_is_unavailable() -> None:
    async def speak_nonsense(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(speak_nonsense, "127.0.0.1", 0)
    driver = RedisDriver(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0", timeout_s=2)
    with pytest.raises(BroadcastUnavailable):
        await driver.send(envelopes(1))
    await driver.aclose()
    server.close()


async def test_a_closed_driver_is_unavailable(driver: Driver) -> None:
    await driver.send(envelopes(1))
    await driver.aclose()

    with pytest.raises(BroadcastUnavailable, match="closed"):
        await driver.send(envelopes(1))


@pytest.mark.parametrize("url", ["", "localhost:6379", "http://127.0.0.1"])
def test_an_invalid_address_is_refused_at_startup(url: str) -> None:
    with pytest.raises(BroadcastConfigError, match="REDIS_URL"):
        RedisDriver(url)
