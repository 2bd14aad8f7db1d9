"""The reverb driver with our own server: extensions of the protocol that only both together support."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import MetaData
from sqlalchemy.ext.asyncio import create_async_engine

from kit.client import Client, connected
from kit.deployment import certificate
from kit.realtime import realtime_server
from kit.redis import RedisServer, redis_server
from kit.waiting import eventually_told
from smartlink.broadcasting import (
    Broadcaster,
    BroadcastEvent,
    BroadcastSettings,
    BroadcastUnavailable,
    Channel,
    Envelope,
    PresenceChannel,
)
from smartlink.broadcasting.drivers.redis import RedisDriver
from smartlink.broadcasting.outbox import Outbox, Relay, define_tables
from smartlink.server.run.lifecycle import RealtimeServer


@pytest.fixture
async def server() -> AsyncIterator[RealtimeServer]:
    async with realtime_server() as running:
        yield running


@pytest.fixture
async def broadcaster(server: RealtimeServer) -> AsyncIterator[Broadcaster]:
    async with Broadcaster.from_settings(BroadcastSettings(_env_file=None, reverb_port=server.port)) as broadcaster:
        yield broadcaster


async def heard(client: Client) -> object:
    return json.loads((await client.expect("said"))["data"])


async def test_ssl_cert_file_names_the_trusted_authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cert, key = certificate(tmp_path)
    tls = {"reverb_server_tls_cert": str(cert), "reverb_server_tls_key": str(key)}
    async with realtime_server(**tls) as server:
        settings = BroadcastSettings(_env_file=None, reverb_port=server.port, reverb_scheme="https")
        async with Broadcaster.from_settings(settings) as stranger:
            with pytest.raises(BroadcastUnavailable):
                await stranger.on(Channel("chat")).as_("said").with_({}).send()
        monkeypatch.setenv("SSL_CERT_FILE", str(cert))
        async with Broadcaster.from_settings(settings) as trusting:
            await trusting.on(Channel("chat")).as_("said").with_({}).send()

    assert server.metrics.publications == 1


async def test_all_sockets_of_a_user_are_excluded(server: RealtimeServer, broadcaster: Broadcaster) -> None:
    async with (
        connected(server.port) as signed_in,
        connected(server.port) as member,
        connected(server.port) as other,
    ):
        await signed_in.sign_in("7")
        await signed_in.subscribe("chat")
        await member.subscribe("presence-room", {"user_id": "7"})
        await member.subscribe("chat")
        await other.subscribe("chat")

        sentence = broadcaster.on(Channel("chat")).as_("said")
        await sentence.with_({"n": 1}).to_other_users(7).send()
        await sentence.with_({"n": 2}).send()

        assert [await heard(other) for _ in range(2)] == [{"n": 1}, {"n": 2}]
        assert await heard(signed_in) == {"n": 2}
        assert await heard(member) == {"n": 2}


async def test_a_socket_and_a_user_may_both_be_excluded(server: RealtimeServer, broadcaster: Broadcaster) -> None:
    async with connected(server.port) as one, connected(server.port) as seven, connected(server.port) as other:
        await seven.subscribe("presence-room", {"user_id": "7"})
        for client in (one, other):
            await client.subscribe("presence-room", {"user_id": "1" if client is one else "2"})
        for client, joined in ((seven, 2), (one, 1)):
            for _ in range(joined):
                await client.expect("pusher_internal:member_added")
        event = broadcaster.on(PresenceChannel("room")).as_("said").with_({"n": 1}).event
        await broadcaster.send(event, socket_id=one.socket_id, to_other_users=7)

        assert await heard(other) == {"n": 1}
        assert await one.is_quiet()
        assert await seven.is_quiet()


async def test_a_resent_event_with_the_same_id_arrives_once(server: RealtimeServer, broadcaster: Broadcaster) -> None:
    async with connected(server.port) as client:
        await client.subscribe("chat")
        again = Envelope("chat", "said", '{"n":1}', event_id="41")
        for envelopes, key in (([again], None), ([again, Envelope("chat", "said", '{"n":2}')], "k"), ([again], None)):
            await broadcaster.driver.send(envelopes, idempotency_key=key)
        await broadcaster.driver.send([Envelope("chat", "said", '{"n":3}')])

        assert [await heard(client) for _ in range(3)] == [{"n": 1}, {"n": 2}, {"n": 3}]


async def test_events_published_through_redis_are_delivered_too() -> None:
    with redis_server() as redis:
        settings = {"broadcast_redis_prefix": "shop_"}
        driver = RedisDriver(redis.url, prefix="shop_")
        async with (
            realtime_server(redis_url=redis.url, broadcast_driver="redis", **settings) as server,
            connected(server.port) as one,
            connected(server.port) as other,
        ):
            for client in (one, other):
                await client.subscribe("chat")
            await eventually_told(lambda: is_listened_to(redis))
            await driver.send([Envelope("chat", "said", '{"n":1}', one.socket_id), Envelope("chat", "said", '{"n":2}')])

            assert [await heard(other) for _ in range(2)] == [{"n": 1}, {"n": 2}]
            assert await heard(one) == {"n": 2}
        await driver.aclose()


async def is_listened_to(redis: RedisServer) -> bool:
    return redis.call("PUBSUB", "NUMPAT") != 0


@dataclass(frozen=True)
class Said(BroadcastEvent):
    broadcast_connections = ("reverb", "null")

    n: int

    def broadcast_on(self) -> Channel:
        return Channel("chat")

    def broadcast_as(self) -> str:
        return "said"


async def test_excluded_users_and_connections_are_recorded_too(
    server: RealtimeServer, broadcaster: Broadcaster, tmp_path: Path
) -> None:
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'outbox.db'}")
    metadata = MetaData()
    outbox = Outbox(tables := define_tables(metadata))
    async with engine.begin() as connection:
        await connection.run_sync(metadata.create_all)
    async with connected(server.port) as seven, connected(server.port) as sender, connected(server.port) as other:
        await seven.sign_in("7")
        for client in (seven, sender, other):
            await client.subscribe("chat")
        plain = broadcaster.on(Channel("chat")).as_("said").with_({"n": 1}).event
        async with engine.begin() as connection:
            packed = broadcaster.pack(plain, socket_id=sender.socket_id, to_other_users=7)
            await outbox.record(connection, [*packed, *broadcaster.pack(Said(2))])
        await Relay(engine, tables, broadcaster.driver).run_once()

        assert [await heard(other) for _ in range(2)] == [{"eventId": 1, "n": 1}, {"eventId": 2, "n": 2}]
        assert await heard(seven) == {"eventId": 2, "n": 2}
        assert await heard(sender) == {"eventId": 2, "n": 2}
    await engine.dispose()
