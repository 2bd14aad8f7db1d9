"""Writing to a Redis connection that was reset counts as a lost connection, on uvloop too.

uvloop raises RuntimeError there. Each part runs on uvloop against a real Redis; a connection is reset in the step before
it writes.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import uvloop
from redis.asyncio.connection import AbstractConnection

from kit.client import connected
from kit.realtime import realtime_server
from kit.redis import RedisServer, fresh_prefix
from kit.redis_engines import redis_engines
from kit.waiting import eventually
from smartlink.broadcasting import BroadcastUnavailable, Envelope
from smartlink.broadcasting.drivers.redis import RedisDriver
from smartlink.lost import closed_is_lost
from smartlink.portal.shared.redis import SharedRedis, SharedRedisAway
from smartlink.portal.users import principals
from smartlink.portal.users.principals import Principals
from smartlink.server.cluster.brokers.base import BrokerUnavailable, Publication


class Resets:
    """While on, resets each connection that is about to write what `of` says."""

    def __init__(self) -> None:
        self.of: bytes | None = None
        self.number = 0

    async def before(self, connection: Any, packed: Any) -> None:
        sent = b"".join(map(bytes, packed)) if isinstance(packed, list) else bytes(packed)
        if self.of is not None and self.of in sent and connection._writer is not None:
            self.number += 1
            connection._writer.transport.abort()
            await asyncio.sleep(0)  # uvloop closes it in the next turn


@pytest.fixture
def resets(monkeypatch: pytest.MonkeyPatch) -> Resets:
    resets, send = Resets(), AbstractConnection.send_packed_command

    async def reset_then_send(self: AbstractConnection, command: Any, *args: Any, **kwargs: Any) -> None:
        await resets.before(self, command)
        await send(self, command, *args, **kwargs)

    monkeypatch.setattr(AbstractConnection, "send_packed_command", reset_then_send)
    return resets


def test_only_uvloops_error_for_a_closed_connection_is_mapped(shared_redis: RedisServer) -> None:
    async def write_to_a_closed_one() -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", shared_redis.port)
        writer.transport.abort()
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="handler is closed"):
            writer.write(b"x")
        with pytest.raises(ConnectionResetError), closed_is_lost():
            writer.write(b"x")

    uvloop.run(write_to_a_closed_one())
    with pytest.raises(RuntimeError, match="our own"), closed_is_lost():
        raise RuntimeError("our own")


def test_a_publisher_gets_503_and_the_node_reconnects(
    shared_redis: RedisServer, resets: Resets, capfd: pytest.CaptureFixture[str]
) -> None:
    async def publish() -> None:
        async with redis_engines(shared_redis.url) as one:
            await one.broker.subscribe("1", "a")
            resets.of = b"EVALSHA"
            with pytest.raises(BrokerUnavailable):
                await one.broker.publish(Publication("1", "a", b"{}"))
            resets.of = b"SUBSCRIBE"
            await one.broker.subscribe("1", "b")
            await eventually(lambda: resets.number >= 3)
            resets.of = None
            await eventually(lambda: one.broker.is_available)
            await one.broker.publish(Publication("1", "a", b"{}"))
            await eventually(lambda: one.heard)

    uvloop.run(publish())
    assert "internal error" not in capfd.readouterr().out


def test_ingest_reconnects(shared_redis: RedisServer, resets: Resets) -> None:
    prefix = fresh_prefix()

    async def read() -> None:
        settings = {"redis_url": shared_redis.url, "reverb_redis_ingest": True, "broadcast_redis_prefix": prefix}
        async with realtime_server(**settings) as server, connected(server.port) as ana:
            await ana.subscribe("news")
            resets.of = b"P"  # PING, then PSUBSCRIBE when it tries again
            await eventually(lambda: resets.number >= 3)
            resets.of = None
            while shared_redis.call("PUBLISH", f"{prefix}news", '{"event":"e","data":"x"}') != 1:
                await asyncio.sleep(0.01)
            await ana.expect("e")

    uvloop.run(read())


def test_the_librarys_driver_raises_unavailable(shared_redis: RedisServer, resets: Resets) -> None:
    async def send_each() -> None:
        driver = RedisDriver(shared_redis.url, timeout_s=2)
        await driver.send([Envelope("a", "E", "{}")])
        resets.of = b"PUBLISH"
        with pytest.raises(BroadcastUnavailable, match="ConnectionResetError"):
            await driver.send([Envelope("a", "E", "{}")])
        resets.of = None
        await driver.send([Envelope("a", "E", "{}")])
        await driver.aclose()

    uvloop.run(send_each())


def test_the_portal_continues_without_redis(
    shared_redis: RedisServer, resets: Resets, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(principals, "UNHEARD_S", 0.05)
    monkeypatch.setattr(principals, "ASK_EVERY_S", 0.05)

    async def ask() -> None:
        shared = SharedRedis(shared_redis.url)
        assert await shared.ask(lambda client: client.ping())
        resets.of = b"PING"
        with pytest.raises(SharedRedisAway):
            await shared.ask(lambda client: client.ping())

        known = Principals(shared)
        known.start()
        await eventually(lambda: resets.number >= 4)
        assert known._listening is not None
        assert not known._listening.done()
        await known.aclose()
        resets.of = None
        await shared.aclose()

    uvloop.run(ask())
