"""The Redis broker while Redis, or the network to it, fails."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from kit.ports import free_port
from kit.redis import RedisServer, proxy, redis_server
from kit.redis_engines import RedisEngines, make_engines, redis_engines
from kit.waiting import eventually
from smartlink.server.cluster.brokers import redis as module
from smartlink.server.cluster.brokers.base import BrokerUnavailable, Control, Publication

pytestmark = pytest.mark.usefixtures("impatient")


def event(number: int, *, is_live: bool = False) -> Publication:
    return Publication("1", "chat", b'{"event":"e","data":"%d"}' % number, is_live=is_live)


async def publish_all(engines: RedisEngines, publications: Sequence[Publication]) -> None:
    for publication in publications:
        await engines.broker.publish(publication)


async def refused(engines: RedisEngines) -> bool:
    try:
        await engines.broker.publish(event(0))
    except BrokerUnavailable:
        return True
    return False


async def test_publications_during_a_killed_subscription_are_delivered_later(shared_redis: RedisServer) -> None:
    async with redis_engines(shared_redis.url) as one, redis_engines(shared_redis.url, one.names.prefix) as two:
        await one.broker.subscribe("1", "chat")
        sent = [event(number) for number in range(300)]
        await publish_all(two, sent[:100])
        shared_redis.call("CLIENT", "KILL", "TYPE", "pubsub")
        await publish_all(two, sent[100:200])
        await eventually(lambda: len(one.heard) >= 200)
        shared_redis.call("CLIENT", "KILL", "TYPE", "pubsub")
        await publish_all(two, sent[200:])

        await eventually(lambda: len(one.heard) >= 300)
        assert one.heard == sent


async def test_a_black_hole_is_detected_reported_and_its_gap_closed(shared_redis: RedisServer) -> None:
    async with (
        proxy(shared_redis.port) as between,
        redis_engines(between.url) as one,
        redis_engines(shared_redis.url, one.names.prefix) as two,
    ):
        await one.broker.subscribe("1", "chat")
        sent = [event(number) for number in range(40)]
        await publish_all(two, sent[:10])
        await eventually(lambda: len(one.heard) == 10)

        between.swallow()
        await publish_all(two, sent[10:30])
        await eventually(lambda: not one.broker.is_available)
        await one.broker.subscribe("1", "late")
        for _ in range(20):
            with pytest.raises(BrokerUnavailable):  # at its first step: a publisher is refused without waiting
                one.broker.publish(event(0)).send(None)
        await between.heal()
        await eventually(lambda: one.broker.is_available)
        await publish_all(one, sent[30:])
        await two.broker.publish(Publication("1", "late", b"{}"))

        await eventually(lambda: len(one.heard) == 41)
        assert [p for p in one.heard if p != Publication("1", "late", b"{}")] == sent


async def test_live_publications_reach_local_subscribers_during_an_outage() -> None:
    with redis_server() as server:
        async with redis_engines(server.url) as engines:
            await engines.broker.subscribe("1", "chat")
            server.kill()
            await eventually(lambda: not engines.broker.is_available)
            await engines.broker.publish(event(1, is_live=True))
            await engines.broker.publish(Publication("1", "elsewhere", b"{}", is_live=True))
            assert await refused(engines)
            with pytest.raises(BrokerUnavailable):
                await engines.broker.publish(Control("1", "terminate_user", "7"))

            assert engines.heard == [event(1, is_live=True)]


async def test_publishing_continues_after_redis_returns_empty() -> None:
    with redis_server() as server:
        async with redis_engines(server.url) as engines:
            await engines.broker.subscribe("1", "chat")
            await engines.broker.publish(event(1))
            await eventually(lambda: engines.heard == [event(1)])
            server.kill()
            await eventually(lambda: not engines.broker.is_available)
            server.start()
            await eventually(lambda: engines.broker.is_available)
            await engines.broker.publish(event(2))

            await eventually(lambda: engines.heard == [event(1), event(2)])


async def test_a_frozen_redis_is_detected_and_causes_no_duplicates() -> None:
    with redis_server() as server:
        async with redis_engines(server.url) as engines:
            await engines.broker.subscribe("1", "chat")
            await engines.broker.publish(event(1))
            server.freeze()
            with pytest.raises(BrokerUnavailable):
                await engines.broker.publish(event(2))
            assert not engines.broker.is_available
            server.thaw()
            await eventually(lambda: engines.broker.is_available)
            await engines.broker.publish(event(3))
            await eventually(lambda: event(3) in engines.heard)

            # Whether the second arrived cannot be known by its publisher; twice it never does.
            assert engines.heard in ([event(1), event(3)], [event(1), event(2), event(3)])


async def test_a_gap_longer_than_the_stream_is_reported(
    shared_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "KEPT_PER_CHANNEL", 20)
    async with (
        proxy(shared_redis.port) as between,
        redis_engines(between.url) as one,
        redis_engines(shared_redis.url, one.names.prefix) as two,
    ):
        await one.broker.subscribe("1", "chat")
        await one.broker.subscribe("1", "quiet")
        between.swallow()
        await publish_all(two, [event(number) for number in range(50)])
        await two.broker.publish(Publication("1", "quiet", b"{}"))
        await eventually(lambda: not one.broker.is_available)
        await between.heal()

        await eventually(lambda: one.broker.is_available)
        assert one.heard == [Control("1", module.MISSED, "chat"), Publication("1", "quiet", b"{}")]


async def test_a_gap_in_what_an_app_over_its_budget_has_lost_is_reported(shared_redis: RedisServer) -> None:
    async with (
        proxy(shared_redis.port) as between,
        redis_engines(between.url) as one,
        redis_engines(shared_redis.url, one.names.prefix, max_app_bytes=65_536) as two,
    ):
        for channel in ("chat", "quiet"):
            await one.broker.subscribe("1", channel)
        await one.broker.subscribe("2", "chat")
        others = [Publication("1", "quiet", b"{}"), Publication("2", "chat", b"{}")]
        await publish_all(two, others)
        await eventually(lambda: one.heard == others)
        between.swallow()
        await publish_all(two, [Publication("1", "chat", b'"%b"' % (b"x" * 5_000)) for _ in range(30)])
        await eventually(lambda: not shared_redis.call("EXISTS", one.names.log("1", "chat")))
        await publish_all(two, others)
        await eventually(lambda: not one.broker.is_available)
        await between.heal()

        await eventually(lambda: one.broker.is_available)
        # The app's other channel may have been dropped too, and then it is told; another app's never is.
        later = one.heard[len(others) :]
        missed = [Control("1", module.MISSED, channel) for channel in ("chat", "quiet")]
        assert later in ([*missed, others[1]], [missed[0], *others])


async def test_an_app_over_its_budget_keeps_its_newest_streams(shared_redis: RedisServer) -> None:
    async with redis_engines(shared_redis.url, max_app_bytes=65_536) as engines:
        sent = [Publication("1", f"chat-{number}", b"{}") for number in range(300)]
        await publish_all(engines, sent)
        await eventually(lambda: not shared_redis.call("EXISTS", engines.names.log("1", "chat-0")))
        assert shared_redis.call("XLEN", engines.names.log("1", "chat-299")) == 1


async def test_unrecoverable_controls_are_reported_as_missed(
    shared_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "KEPT_PER_CHANNEL", 20)
    async with (
        proxy(shared_redis.port) as between,
        redis_engines(between.url) as one,
        redis_engines(shared_redis.url, one.names.prefix) as two,
    ):
        between.swallow()
        for number in range(50):
            await two.broker.publish(Control("1", "terminate_user", str(number)))
        await eventually(lambda: not one.broker.is_available)
        await between.heal()

        await eventually(lambda: one.broker.is_available)
        assert one.heard == [Control("", module.MISSED, "")]


async def test_a_node_started_without_redis_gets_earlier_controls_later() -> None:
    port = free_port()
    late = make_engines(f"redis://127.0.0.1:{port}/0")
    await late.start()
    try:
        with redis_server(port=port) as server:
            # Its own commands are back already; only its subscription is late.
            async with redis_engines(server.url, late.names.prefix) as other:
                await other.broker.publish(Control("1", "terminate_user", "7"))
                await eventually(lambda: late.broker.is_available)

                await eventually(lambda: late.heard == [Control("1", "terminate_user", "7")])
    finally:
        await late.stop()


async def test_a_node_can_start_without_redis() -> None:
    port = free_port()
    engines = make_engines(f"redis://127.0.0.1:{port}/0")
    await engines.start()
    try:
        assert not engines.broker.is_available
        await engines.broker.subscribe("1", "chat")
        with redis_server(port=port):
            await eventually(lambda: engines.broker.is_available)
            await engines.broker.publish(event(1))

            await eventually(lambda: engines.heard == [event(1)])
    finally:
        await engines.stop()


async def test_scripts_lost_by_redis_are_loaded_again(shared_redis: RedisServer) -> None:
    async with redis_engines(shared_redis.url) as engines:
        await engines.broker.subscribe("1", "chat")
        sent = [event(number) for number in range(50)]
        for publication in sent:
            if publication == sent[25]:
                shared_redis.call("SCRIPT", "FLUSH")
            await engines.broker.publish(publication)

        await eventually(lambda: len(engines.heard) == 50)
        assert engines.heard == sent


HOSTILE = [
    b"",
    b"\x80\x04\x95pickle",
    b"null",
    b"[]",
    b"{}",
    b'{"v":1}',
    b'{"v":2,"f":{}}',
    b'{"v":"1","f":{}}',
    b'{"v":1,"f":}',
    b'{"v":1,"f":{"a":1}',
    b'{"v":1,"f":{},"x":"not a socket"}',
    b'{"v":1,"f":{},"x":7}',
    b'{"v":1,"i":"x","f":{}}',
    b'{"v":1,"i":"9-","f":{}}',
    b'{"v":1,"f":"\xff\xfe"}',
    b'{"v":1,"f":' + b"[" * 20_000 + b"]" * 20_000 + b"}",
    b'{"v":1,"c":{"app_id":"1","action":"terminate_user","target":"7"}}',
    b'{"v":1,"f":"' + b"x" * 5_000_000 + b'"}',
]


async def test_hostile_messages_on_the_bus_are_dropped_and_counted(shared_redis: RedisServer) -> None:
    async with redis_engines(shared_redis.url) as engines:
        await engines.broker.subscribe("1", "chat")
        for payload in HOSTILE:
            shared_redis.call("PUBLISH", engines.names.publications("1", "chat"), payload)  # type: ignore[arg-type]
        for payload in (b"", b"{}", b'{"v":1,"f":{}}', b'{"v":1,"c":{"app_id":1}}', b'{"v":1,"c":[]}'):
            shared_redis.call("PUBLISH", engines.names.control, payload)  # type: ignore[arg-type]
        await engines.broker.publish(event(1))

        await eventually(lambda: engines.heard)
        assert engines.heard == [event(1)]
        # Controls come on a subscription of their own.
        await eventually(lambda: engines.metrics.bus_messages_dropped >= len(HOSTILE) + 5)
        assert engines.metrics.bus_messages_dropped == len(HOSTILE) + 5
        assert engines.broker.is_available


async def test_commands_of_one_loop_turn_are_pipelined_in_order(shared_redis: RedisServer) -> None:
    async with redis_engines(shared_redis.url) as engines:
        await engines.broker.subscribe("1", "chat")
        sent = [event(number) for number in range(400)]
        await asyncio.gather(*(engines.broker.publish(publication) for publication in sent))

        await eventually(lambda: len(engines.heard) == 400)
        assert engines.heard == sent
