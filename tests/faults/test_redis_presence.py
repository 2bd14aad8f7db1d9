"""The Redis presence store while nodes die or are cut off, and Redis fails and returns."""

from __future__ import annotations

import time

import pytest

from kit.redis import RedisServer, proxy, redis_server
from kit.redis_engines import RedisEngines, redis_engines
from kit.waiting import eventually
from smartlink.protocol.session import PresenceMember
from smartlink.server.cluster.brokers.base import BrokerUnavailable
from smartlink.server.cluster.idempotency.base import CallUnderWay
from smartlink.server.cluster.presence import redis as presence
from smartlink.server.cluster.presence.base import Arrival, Change, ChannelCount, Departure

ANA, BEN, CLEO = (
    PresenceMember("1", b'{"name":"Ana"}', is_number=True),
    PresenceMember("2"),
    PresenceMember("3", b'{"a":1}', is_number=True),
)
NEWER = PresenceMember("1", b'{"name":"Ana B."}', is_number=True)
ROOM = ("1", "presence-a")
impatient = pytest.mark.usefixtures("impatient")


def gone(*members: PresenceMember) -> Change:
    return Change(
        *ROOM, removed=tuple(PresenceMember(member.user_id, is_number=member.is_number) for member in members)
    )


async def settled(engines: RedisEngines) -> None:
    """Wait until everything the node has to put right is put right, and told."""
    presence = engines.presence

    def is_at_rest() -> bool:
        busy = presence._dirty or presence._unsettled or presence._dead or presence._former_id
        return presence._is_joined and not busy

    await eventually(is_at_rest)
    await engines.commands.ask("", "PING")  # answered after what was under way
    await eventually(is_at_rest)


async def test_a_dead_nodes_entries_are_removed_within_ten_seconds_and_announced_once(
    shared_redis: RedisServer,
) -> None:
    async with (
        redis_engines(shared_redis.url) as dying,
        redis_engines(shared_redis.url, dying.names.prefix) as two,
        redis_engines(shared_redis.url, dying.names.prefix) as three,
    ):
        await dying.presence.join(*ROOM, "1.1", ANA)
        await dying.presence.join(*ROOM, "1.2", BEN)
        await dying.presence.join("1", "chat", "1.1", None)
        await dying.presence.join("1", "lobby", "1.1", None)
        await two.presence.join("1", "lobby", "2.1", None)
        await two.presence.join(*ROOM, "2.1", BEN)
        dying.presence.report_connections("1", 5)
        await eventually(lambda: three.presence.connections_elsewhere("1") == 5)
        assert await three.presence.nodes() == 3

        await dying.die()
        await eventually(lambda: len(two.changes + three.changes) == 3)

        assert presence.LEASE_MS / 1_000 + presence.BEAT_EVERY_S + presence.SETTLE_S <= 10
        assert sorted(two.changes + three.changes, key=lambda change: change.channel) == [
            Change("1", "chat", is_vacated=True),
            Change("1", "lobby"),
            gone(ANA),
        ]
        assert await three.presence.count(*ROOM) == ChannelCount(1, 1)
        assert await three.presence.members(*ROOM) == [BEN]
        await eventually(lambda: three.presence.connections_elsewhere("1") == 0)
        assert await two.presence.nodes() == 2


@impatient
async def test_members_with_a_grace_outlast_a_dead_node(shared_redis: RedisServer) -> None:
    async with (
        redis_engines(shared_redis.url) as dying,
        redis_engines(shared_redis.url, dying.names.prefix) as other,
    ):
        grace_s = int(presence.LEASE_MS / 1_000) + 2
        await dying.presence.join(*ROOM, "1.1", ANA)
        await dying.presence.join(*ROOM, "1.2", BEN, grace_s)
        await dying.presence.join(*ROOM, "1.3", CLEO, grace_s)

        await dying.die()
        await eventually(lambda: other.changes)
        assert other.changes == [gone(ANA)]
        assert await other.presence.members(*ROOM) == [BEN, CLEO]
        await other.presence.join(*ROOM, "2.2", BEN)
        await eventually(lambda: len(other.changes) == 2)

        assert other.changes[1] == gone(CLEO)
        assert await other.presence.members(*ROOM) == [BEN]
        await settled(other)


@impatient
async def test_a_grace_outlasts_a_flushed_redis() -> None:
    with redis_server() as server:
        async with redis_engines(server.url) as dying, redis_engines(server.url, dying.names.prefix) as other:
            await dying.presence.join(*ROOM, "1.1", ANA)
            await dying.presence.join(*ROOM, "1.2", BEN, 300)
            former_id = dying.presence._node_id
            server.call("FLUSHALL")
            await eventually(lambda: dying.presence._node_id != former_id)
            await settled(dying)

            await dying.die()
            await eventually(lambda: other.changes)

            assert other.changes == [gone(ANA)]
            assert await other.presence.members(*ROOM) == [BEN]


@impatient
async def test_a_flushed_redis_is_refilled_without_announcements(shared_redis: RedisServer) -> None:
    with redis_server() as server:
        async with redis_engines(server.url) as one, redis_engines(server.url, one.names.prefix) as two:
            await one.presence.join(*ROOM, "1.1", ANA)
            await one.presence.join("1", "chat", "1.1", None)
            await two.presence.join(*ROOM, "2.1", ANA)
            await two.presence.join(*ROOM, "2.2", BEN)

            server.call("FLUSHALL")
            await eventually(lambda: one.presence._node_id and server.call("DBSIZE") > 5)  # type: ignore[operator]
            await settled(one)
            await settled(two)
            await eventually(lambda: (one.presence._places.nodes, two.presence._places.nodes) == (2, 2))

            assert await one.presence.count(*ROOM) == ChannelCount(3, 2)
            assert set(await two.presence.channels("1")) == {"presence-a", "chat"}
            assert (one.changes, two.changes) == ([Change("1", "chat")], [])
            assert await one.presence.leave(*ROOM, "1.1") == Departure(False, False, 2)
            assert await two.presence.leave(*ROOM, "2.1") == Departure(False, True, 1)


@impatient
async def test_during_an_outage_a_node_answers_for_itself_and_catches_up_later() -> None:
    with redis_server() as server:
        async with redis_engines(server.url) as one, redis_engines(server.url, one.names.prefix) as two:
            await one.presence.join(*ROOM, "1.1", ANA)
            await two.presence.join(*ROOM, "2.1", BEN)
            await two.presence.join(*ROOM, "2.2", ANA)
            server.kill()
            await eventually(lambda: not one.commands.is_available and not two.commands.is_available)

            assert await one.presence.join(*ROOM, "1.2", CLEO) == Arrival(False, True, 2)
            assert await one.presence.leave(*ROOM, "1.1") == Departure(False, True, 1)
            assert await one.presence.members(*ROOM) == [CLEO]
            assert await one.presence.count(*ROOM) == ChannelCount(1, 1)
            assert await one.presence.nodes() == 1
            assert await two.presence.leave(*ROOM, "2.1") == Departure(False, True, 1)
            assert await two.presence.join("1", "new", "2.2", None) == Arrival(True, False, 1)

            server.start()
            await settled(one)
            await settled(two)
            # Ana left one node and is still on the other: nothing is told of her.
            assert sorted(one.changes + two.changes, key=repr) == sorted(
                [Change(*ROOM, added=(CLEO,)), Change("1", "new", is_occupied=True), gone(BEN)], key=repr
            )
            assert await one.presence.count(*ROOM) == ChannelCount(2, 2)
            assert set(await two.presence.members(*ROOM)) == {ANA, CLEO}


@impatient
async def test_a_node_cut_off_for_long_is_removed_and_returns_with_its_current_state(shared_redis: RedisServer) -> None:
    async with (
        proxy(shared_redis.port) as between,
        redis_engines(between.url) as cut,
        redis_engines(shared_redis.url, cut.names.prefix) as other,
    ):
        await cut.presence.join(*ROOM, "1.1", ANA)
        await cut.presence.join(*ROOM, "1.2", BEN)
        await cut.presence.join("1", "chat", "1.1", None)
        await other.presence.join(*ROOM, "2.1", CLEO)
        assert await other.presence.change(*ROOM, "1", NEWER.user_info) == ANA
        cut.presence.note(*ROOM, "1", NEWER.user_info)

        between.swallow()
        await eventually(lambda: len(other.changes) == 2)
        assert set(other.changes[0].removed + other.changes[1].removed) == {
            PresenceMember("1", is_number=True),
            PresenceMember("2"),
        }
        assert await other.presence.members(*ROOM) == [CLEO]
        await cut.presence.leave(*ROOM, "1.2")
        await between.heal()
        await settled(cut)

        assert sorted(cut.changes, key=lambda change: change.channel) == [
            Change("1", "chat", is_occupied=True),
            Change(*ROOM, added=(NEWER,)),
        ]
        assert len(other.changes) == 2, "Ben was told of already"
        assert await other.presence.members(*ROOM) == [CLEO, NEWER]
        assert await other.presence.count(*ROOM) == ChannelCount(2, 2)


@impatient
async def test_a_short_interruption_changes_and_announces_nothing(shared_redis: RedisServer) -> None:
    async with (
        proxy(shared_redis.port) as between,
        redis_engines(between.url) as cut,
        redis_engines(shared_redis.url, cut.names.prefix) as other,
    ):
        await cut.presence.join(*ROOM, "1.1", ANA)
        losses: list[None] = []
        cut.commands.on_loss.append(lambda: losses.append(None))
        await between.cut()
        await eventually(lambda: losses)
        await settled(cut)

        assert cut.changes == other.changes == []
        assert await other.presence.members(*ROOM) == [ANA]


@impatient
async def test_a_frozen_redis_makes_no_node_count_as_dead() -> None:
    with redis_server() as server:
        async with redis_engines(server.url) as one, redis_engines(server.url, one.names.prefix) as two:
            await one.presence.join(*ROOM, "1.1", ANA)
            await two.presence.join(*ROOM, "2.1", BEN)
            ids = (one.presence._node_id, two.presence._node_id)
            server.freeze()
            await eventually(lambda: not one.commands.is_available and not two.commands.is_available)
            frozen_at = time.monotonic()
            await eventually(lambda: time.monotonic() - frozen_at > 2.5)
            server.thaw()
            await settled(one)
            await settled(two)
            await eventually(lambda: (one.presence._places.nodes, two.presence._places.nodes) == (2, 2))

            assert ids == (one.presence._node_id, two.presence._node_id)
            assert one.changes == two.changes == []
            assert await one.presence.members(*ROOM) == [ANA, BEN]


@impatient
async def test_a_partial_loss_of_data_in_redis_is_detected(shared_redis: RedisServer) -> None:
    async with redis_engines(shared_redis.url) as engines:
        await engines.presence.join(*ROOM, "1.1", ANA)
        names = engines.names
        for kind in "choi":
            shared_redis.call("DEL", names.of_channel(kind, *ROOM))
        shared_redis.call("DEL", f"{names.of_channel('m', *ROOM)}:{engines.presence._node_id}")
        shared_redis.call("DEL", names.channels_of_node(engines.presence._node_id))

        await eventually(lambda: shared_redis.call("HLEN", names.of_channel("c", *ROOM)) == 1)
        await settled(engines)
        assert await engines.presence.members(*ROOM) == [ANA]
        assert set(await engines.presence.channels("1")) == {"presence-a"}
        assert engines.changes == []


async def test_a_stopped_node_leaves_nothing_behind(shared_redis: RedisServer) -> None:
    async with redis_engines(shared_redis.url) as one, redis_engines(shared_redis.url, one.names.prefix) as two:
        await two.presence.join(*ROOM, "2.1", ANA)
        await two.presence.join("1", "chat", "2.1", None)
        await two.stop()

        assert sorted(two.changes, key=lambda change: change.channel) == [
            Change("1", "chat", is_vacated=True),
            Change(*ROOM, removed=(PresenceMember("1", is_number=True),), is_vacated=True),
        ]
        assert await one.presence.channels("1") == {}
        keys = shared_redis.call("KEYS", f"{one.names.prefix}:*")
        assert isinstance(keys, list)
        assert not [key for key in keys if two.presence._node_id.encode() in key or b":c:" in key or b":h:" in key]


@impatient
async def test_a_claim_whose_reply_was_lost_does_not_block_its_repeat() -> None:
    with redis_server() as server:
        async with redis_engines(server.url) as engines:
            server.freeze()
            with pytest.raises(BrokerUnavailable):
                await engines.idempotency.claim("1", "k")
            with pytest.raises(BrokerUnavailable):
                await engines.idempotency.claim("1", "k")
            with pytest.raises(BrokerUnavailable):
                await engines.history.append("1", "cache-a", b"{}", 60)
            server.thaw()
            await eventually(lambda: engines.commands.is_available)

            assert await engines.idempotency.claim("1", "k") is None
            with pytest.raises(CallUnderWay):
                await engines.idempotency.claim("1", "k")
            server.kill()
            await engines.idempotency.complete("1", "k", b"{}")
