"""The Redis engines on a Cluster of three masters, and with Sentinels."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from kit import processes
from kit.client import connected
from kit.realtime import call, realtime_server
from kit.redis import RedisServer, cluster, fresh_prefix, half_moved, redis_server, sentinel
from kit.redis_engines import RedisEngines, redis_engines
from kit.simultaneous_joins import misled, misled_by_leaves
from kit.waiting import eventually, eventually_told
from smartlink.protocol.session import PresenceMember
from smartlink.server.cluster.brokers.base import BrokerUnavailable, Control, Publication
from smartlink.server.cluster.idempotency.base import CallUnderWay
from smartlink.server.cluster.presence.base import Arrival, Change, ChannelCount, Departure
from smartlink.server.cluster.redis.commands import RedisCommands
from smartlink.server.cluster.redis.naming import Names
from smartlink.server.settings.redis_address import parse_url
from smartlink.server.webhooks.queue import Address, Subject, WebhookReport
from smartlink.server.webhooks.redis import WEBHOOK_SCRIPTS, RedisQueue

ANA, BEN = PresenceMember("1"), PresenceMember("2")
CHANNELS = [f"presence-{number}" for number in range(40)]


@pytest.fixture(scope="module")
def masters() -> Iterator[list[RedisServer]]:
    with cluster(3) as servers:
        yield servers


def url(masters: list[RedisServer]) -> str:
    return f"redis+cluster://127.0.0.1:{masters[0].port},127.0.0.1:{masters[1].port}"


@pytest.fixture
async def pair(masters: list[RedisServer]) -> AsyncIterator[tuple[RedisEngines, RedisEngines]]:
    async with redis_engines(url(masters)) as one, redis_engines(url(masters), one.names.prefix) as two:
        yield one, two


async def test_publications_are_spread_over_all_masters_in_order(pair: tuple[RedisEngines, RedisEngines]) -> None:
    one, two = pair
    for channel in CHANNELS:
        await one.broker.subscribe("1", channel)
    sent = [Publication("1", channel, b"%d" % number) for number in range(10) for channel in CHANNELS]
    for publication in sent:
        await two.broker.publish(publication)
    await two.broker.publish(Control("1", "terminate_user", "7"))
    await one.broker.publish(Publication("1", CHANNELS[0], b"{}", is_live=True))

    await eventually(lambda: len(one.heard) == len(sent) + 2)
    for channel in CHANNELS:
        came = [p for p in one.heard if isinstance(p, Publication) and p.channel == channel and p.frame != b"{}"]
        assert came == [p for p in sent if p.channel == channel]
    assert two.heard == [Control("1", "terminate_user", "7")]


async def test_presence_works_on_a_cluster(pair: tuple[RedisEngines, RedisEngines]) -> None:
    one, two = pair
    for channel in CHANNELS:
        assert await one.presence.join("1", channel, "1.1", ANA) == Arrival(True, True, 1)
        assert await two.presence.join("1", channel, "2.1", ANA) == Arrival(False, False, 2)
        assert await two.presence.join("1", channel, "2.2", BEN) == Arrival(False, True, 3)
    assert await one.presence.channels("1") == dict.fromkeys(CHANNELS, ChannelCount(3, 2))
    await two.die()
    await eventually(lambda: len(one.changes) == len(CHANNELS))
    assert one.changes[0].removed == (BEN,)
    assert await one.presence.leave("1", CHANNELS[0], "1.1") == Departure(True, True, 0)


async def test_history_and_idempotency_work_on_a_cluster(pair: tuple[RedisEngines, RedisEngines]) -> None:
    one, two = pair
    for number, channel in enumerate(CHANNELS):
        assert await one.history.append("1", channel, b"%d" % number, 60) == 1
        latest = await two.history.latest("1", channel)
        assert latest is not None
        assert latest.frame == b"%d" % number
        assert await one.idempotency.claim("1", channel) is None
        with pytest.raises(CallUnderWay):
            await two.idempotency.claim("1", channel)


async def test_members_joining_at_different_nodes_on_a_cluster_see_each_other_once(masters: list[RedisServer]) -> None:
    settings = {"reverb_scaling_enabled": True, "reverb_scaling_channel": fresh_prefix(), "redis_url": url(masters)}
    async with realtime_server(**settings) as one, realtime_server(**settings) as two:
        assert await misled([one.port, two.port], 20) == []
        assert await misled_by_leaves([one.port, two.port], 20) == []


async def test_the_webhook_queue_works_on_a_cluster(masters: list[RedisServer]) -> None:
    """Every script is tried: on a Cluster it may touch keys of one slot alone."""
    queue = RedisQueue(RedisCommands(parse_url(url(masters)), WEBHOOK_SCRIPTS), Names(fresh_prefix()))
    subject, address = Subject("1", "presence-a", "7"), Address("1", "https://one.test/hook", is_of_users=True)
    report = WebhookReport("event", subject, 1.0, '"e"', (address.url,))
    await queue.start()
    try:
        await queue.record([WebhookReport("arrival", subject, 1.0, '"a"', (address.url,)), report])
        await queue.record([WebhookReport("leave", subject, 1.0, "", (), 0.0)])
        (check,) = await queue.claim(10, 5, of_users=True)
        assert await queue.settle(check, is_announced=False, report=report)
        await queue.recheck(0)
        assert await queue.ready(10) == [address]
        for end in (queue.done, lambda batch: queue.give_up(batch, "x"), lambda batch: queue.defer(batch, 0, 0, "x")):
            batch = await queue.take(address, 1, 30)
            assert batch is not None
            await end(batch)
        assert [len(each.entries) for each in await queue.failed()] == [1, 1]
        assert (await queue.retry(None), await queue.forget(None)) == (2, 0)
    finally:
        await queue.stop()


async def test_slots_may_move_while_nodes_publish(
    masters: list[RedisServer], pair: tuple[RedisEngines, RedisEngines]
) -> None:
    one, two = pair
    for channel in CHANNELS:
        await one.broker.subscribe("1", channel)
    ids = [str(server.call("CLUSTER", "MYID"), "ascii") for server in masters]  # type: ignore[call-overload]
    resharding = reshard(masters[0].port, ids[0], ids[1], slots=1_000)
    sent: list[Publication] = []
    number = 0
    while resharding.poll() is None or number < 50:
        for channel in CHANNELS:
            publication = Publication("1", channel, b"%d" % number)
            try:
                await two.broker.publish(publication)
            except BrokerUnavailable:
                continue
            sent.append(publication)
        number += 1
    assert resharding.returncode == 0

    def heard(channel: str) -> list[bytes]:
        return [p.frame for p in one.heard if isinstance(p, Publication) and p.channel == channel]

    await eventually(lambda: len(one.heard) >= len(sent))
    for channel in CHANNELS:
        assert heard(channel) == [publication.frame for publication in sent if publication.channel == channel]


@pytest.mark.parametrize("is_moved", [False, True], ids=["its stream still here", "its stream there already"])
async def test_a_channel_in_a_migrating_slot_continues_in_order(
    masters: list[RedisServer], pair: tuple[RedisEngines, RedisEngines], *, is_moved: bool
) -> None:
    one, two = pair
    await one.broker.subscribe("1", "stuck")
    sent = [Publication("1", "stuck", b"%d" % number) for number in range(30)]
    await two.broker.publish(sent[0])
    name, log = one.names.publications("1", "stuck"), one.names.log("1", "stuck")

    with half_moved(masters, name, *([log] if is_moved else [])):
        for publication in sent[1:20]:
            await two.broker.publish(publication)
        await eventually(lambda: len(one.heard) == 20)
    for publication in sent[20:]:
        await two.broker.publish(publication)

    await eventually(lambda: len(one.heard) >= len(sent))
    assert one.heard == sent


async def test_a_new_channel_and_controls_work_in_a_migrating_slot(
    masters: list[RedisServer], pair: tuple[RedisEngines, RedisEngines]
) -> None:
    """Nothing is written there yet, so all that is written goes to the other server."""
    one, two = pair
    await one.broker.subscribe("1", "new")
    sent: list[Publication | Control] = []
    with (
        half_moved(masters, one.names.publications("1", "new")),
        half_moved(masters, one.names.control),
    ):
        for number in range(5):
            sent += [Publication("1", "new", b"%d" % number), Control("1", "told", str(number))]
            for each in sent[-2:]:
                await two.broker.publish(each)
        await eventually(lambda: len(one.heard) >= len(sent))

    for kind in (Publication, Control):
        assert [each for each in one.heard if isinstance(each, kind)] == [
            each for each in sent if isinstance(each, kind)
        ]


async def test_heartbeats_are_received_while_their_slot_migrates(
    masters: list[RedisServer], pair: tuple[RedisEngines, RedisEngines]
) -> None:
    broker = pair[0].broker
    with half_moved(masters, next(iter(broker._beats))):
        before, subscriptions = dict(broker._beats), broker._subscriptions
        await eventually(lambda: all(broker._beats[name] > at + 4_000 for name, at in before.items()), within_s=15)
        assert broker._subscriptions is subscriptions  # none of them was given up


async def test_a_command_waiting_for_a_slot_delays_no_other(
    masters: list[RedisServer], pair: tuple[RedisEngines, RedisEngines]
) -> None:
    """The presence keys of one channel are on two servers: what is asked of it has to wait, and nothing else."""
    one, two = pair
    await one.presence.join("1", "presence-stuck", "1.1", ANA)
    counts = one.names.of_channel("c", "1", "presence-stuck")
    ended: list[str] = []
    commands = one.commands
    with half_moved(masters, counts, counts):
        stuck = [asyncio.create_task(one.presence.count("1", "presence-stuck")) for _ in range(20)]
        for task in stuck:
            task.add_done_callback(lambda _: ended.append("stuck"))
        await eventually(lambda: commands._lanes)
        for number in range(200):
            await one.broker.publish(Publication("1", f"free-{number}", b"{}"))
            ended.append("free")
        assert ended == ["free"] * 200
        assert {(await task).users for task in stuck} == {1}
        assert await two.presence.join("1", "presence-stuck", "2.1", BEN) == Arrival(True, True, 1)

    async def all_know() -> bool:
        return await one.presence.count("1", "presence-stuck") == ChannelCount(2, 2)

    await eventually_told(all_know)
    assert commands._lanes == {}


def reshard(port: int, source: str, target: str, *, slots: int) -> subprocess.Popen[bytes]:
    command = [shutil.which("redis-cli") or "redis-cli", "--cluster", "reshard", f"127.0.0.1:{port}", "--cluster-yes"]
    command += ["--cluster-from", source, "--cluster-to", target, "--cluster-slots", str(slots)]
    return processes.popen(command, stdout=subprocess.DEVNULL)


async def test_servers_on_a_cluster_serve_clients(masters: list[RedisServer]) -> None:
    settings = {
        "reverb_scaling_enabled": True,
        "reverb_scaling_channel": fresh_prefix(),
        "redis_cluster": True,
        "redis_port": masters[2].port,
    }
    async with realtime_server(**settings) as one, realtime_server(**settings) as two:
        async with connected(one.port) as ana, connected(two.port) as ben:
            await ana.subscribe("presence-a", {"user_id": "1"})
            await ben.subscribe("presence-a", {"user_id": "2"})
            await ana.expect("pusher_internal:member_added")
            body = b'{"name":"e","channel":"presence-a","data":"x"}'
            assert (await call(two.port, "POST", "/apps/1001/events", body)).status_code == 200
            await ana.expect("e")
            await ben.expect("e")


async def test_after_a_sentinel_failover_nodes_use_the_new_master() -> None:
    with ExitStack() as stack:
        master = stack.enter_context(redis_server())
        replica = stack.enter_context(redis_server("--replicaof", f"127.0.0.1 {master.port}"))
        await eventually(lambda: info(replica).get("master_link_status") == "up")
        watching = stack.enter_context(sentinel(master.port))
        await eventually(lambda: info(watching).get("master0", {}).get("slaves") in (1, "1"))
        address = f"redis+sentinel://127.0.0.1:1,127.0.0.1:{watching.port}/mymaster"
        async with redis_engines(address) as one, redis_engines(address, one.names.prefix) as two:
            await one.presence.join("1", "presence-a", "1.1", ANA)
            await one.broker.subscribe("1", "presence-a")
            master.kill()
            await eventually(lambda: not one.broker.is_available and not two.broker.is_available)
            await two.presence.join("1", "presence-a", "2.1", BEN)
            await eventually(lambda: one.broker.is_available and two.broker.is_available)
            await two.broker.publish(Publication("1", "presence-a", b"{}"))

            await eventually(lambda: Publication("1", "presence-a", b"{}") in one.heard)
            await eventually(lambda: two.changes == [Change("1", "presence-a", added=(BEN,))])
            assert await one.presence.count("1", "presence-a") == ChannelCount(2, 2)
            assert one.changes == []


def info(server: RedisServer) -> dict[str, Any]:
    answer = server.call("INFO")
    assert isinstance(answer, dict)
    return answer
