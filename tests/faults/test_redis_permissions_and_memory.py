"""A Redis that lacks permissions, is full, or evicts keys: the real reason is reported everywhere."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from kit.client import connected
from kit.observing import observed
from kit.realtime import call, realtime_server
from kit.redis import RedisServer, cluster, redis_server
from kit.redis_engines import redis_engines
from kit.waiting import eventually, eventually_told
from smartlink.cli.doctor.finding import CheckState
from smartlink.cli.doctor.redis import check_redis
from smartlink.protocol.session import PresenceMember
from smartlink.server.cluster.brokers.base import BrokerUnavailable, Publication
from smartlink.server.cluster.presence.base import ChannelCount
from smartlink.server.cluster.redis.connect import RedisRefused
from smartlink.server.cluster.redis.permissions import COMMANDS
from smartlink.server.run import bootstrap
from smartlink.server.run.engines import engines_for
from smartlink.server.runtime.metrics import Metrics
from smartlink.server.settings.config import ServerSettings

HOWTO = Path(__file__).parents[2] / "docs/howto/redis.md"
PREFIX = "reverb"
ALLOWED = re.search(r"ACL SETUSER realtime on >… (.+)", HOWTO.read_text()).group(1).split()  # type: ignore[union-attr]
ANA, BEN = PresenceMember("1"), PresenceMember("2")


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


def allow(server: RedisServer, *rules: str) -> None:
    server.call("ACL", "SETUSER", "realtime", "reset", "on", ">secret", *rules)


def scaled(server: RedisServer, **settings: object) -> ServerSettings:
    where = {"redis_host": "127.0.0.1", "redis_port": server.port} | settings
    return ServerSettings(_env_file=None, reverb_scaling_enabled=True, reverb_server_port=0, **where)  # type: ignore[arg-type]


def as_realtime(server: RedisServer, **settings: object) -> ServerSettings:
    return scaled(server, redis_username="realtime", redis_password="secret", **settings)


async def start_and_stop(settings: ServerSettings) -> None:
    server = bootstrap.build(settings)
    await server.start()
    await server.stop()


def test_every_command_of_a_script_is_probed() -> None:
    scripts = engines_for(scaled_anywhere(), Metrics()).redis
    assert scripts is not None
    used = set(re.findall(r"redis\.call\('([A-Z]+)'", "".join(scripts._scripts)))

    assert {name.lower() for name in used} <= COMMANDS.keys()


def scaled_anywhere() -> ServerSettings:
    return ServerSettings(_env_file=None, reverb_scaling_enabled=True, redis_host="127.0.0.1", redis_port=1)


async def test_the_documented_acl_rules_are_sufficient_also_for_doctor(redis: RedisServer) -> None:
    allow(redis, *ALLOWED)
    settings = as_realtime(redis)

    assert [finding.state for finding in await check_redis(settings, None)] == [CheckState.FINE, CheckState.FINE]
    values = {name: getattr(settings, name) for name in settings.model_fields_set}
    async with realtime_server(**values) as one, realtime_server(**values) as two:
        async with connected(one.port) as ana, connected(two.port) as ben:
            await ana.subscribe("presence-a", {"user_id": "1"})
            await ben.subscribe("presence-a", {"user_id": "2"})
            await ana.expect("pusher_internal:member_added")
            for server in (one, two):
                assert (await call(server.port, "GET", "/up")).json() == {"health": "OK"}


async def test_the_documented_acl_rules_are_sufficient_on_a_cluster() -> None:
    with cluster(3) as masters:
        for master in masters:
            allow(master, *ALLOWED, "+cluster|slots")
        settings = as_realtime(masters[0], redis_cluster=True)
        assert [finding.state for finding in await check_redis(settings, None)] == [CheckState.FINE, CheckState.FINE]
        await start_and_stop(settings)

        allow(masters[2], *ALLOWED, "+cluster|slots", "-ssubscribe")
        with pytest.raises(RedisRefused, match=rf":{masters[2].port} .*Missing: \+ssubscribe\."):
            await start_and_stop(settings)


@pytest.mark.parametrize(
    ("changes", "missing"),
    [
        (("-xadd",), "+xadd"),
        (("-info",), "+info"),
        (("-time",), "+time"),
        (("-subscribe",), "+subscribe"),
        (("-publish", "-hset"), "+hset +publish"),
        (("-script",), "+script|load"),
        (("-evalsha",), "+evalsha"),
        (("resetkeys",), "~reverb:*"),
        (("resetkeys", "~other:*"), "~reverb:*"),
        (("resetchannels",), "&reverb:*"),
    ],
)
async def test_each_missing_acl_rule_is_named_at_startup_and_by_doctor(
    redis: RedisServer, changes: tuple[str, ...], missing: str
) -> None:
    allow(redis, *ALLOWED, *changes)
    settings = as_realtime(redis)

    with pytest.raises(RedisRefused) as refused:
        await start_and_stop(settings)
    (found,) = await check_redis(settings, None)

    assert f"Missing: {missing}. " in str(refused.value)
    assert found.state is CheckState.FAILED
    assert f"Missing: {missing}. " in found.said
    assert "PASSWORD" not in found.said + found.fix


async def test_a_full_redis_is_reported_as_full() -> None:
    body = b'{"name":"e","channel":"a","data":"x"}'
    with redis_server() as redis:
        settings = {"reverb_scaling_enabled": True, "redis_url": redis.url}
        async with realtime_server(**settings) as server:
            redis.call("CONFIG", "SET", "maxmemory", "1")

            refused = await call(server.port, "POST", "/apps/1001/events", body)
            assert refused.status_code == 503
            assert "Redis is full" in refused.text
            assert "unreachable" not in refused.text
            up = await call(server.port, "GET", "/up")
            assert (up.status_code, up.json()["health"]) == (200, "degraded")
            assert "Redis is full" in up.json()["problems"][0]
            status = (await call(server.port, "GET", "/apps/1001/status")).json()
            assert (status["redis"], status["problems"]) == ("full", up.json()["problems"])
            ready = await observed(server, "/readyz")
            assert ready == (503, "Redis is full: it accepts no writes until memory is freed\n")
            found = await check_redis(ServerSettings(_env_file=None, **settings), None)
            assert "out of memory" in next(each for each in found if each.state is CheckState.FAILED).said

            redis.call("CONFIG", "SET", "maxmemory", "0")

            async def is_well() -> bool:
                return (await call(server.port, "GET", "/up")).json() == {"health": "OK"}

            await eventually_told(is_well)
            assert (await call(server.port, "POST", "/apps/1001/events", body)).status_code == 200


async def test_a_leave_while_redis_is_full_is_recorded_and_announced_once() -> None:
    with redis_server() as redis:
        async with redis_engines(redis.url) as one, redis_engines(redis.url, one.names.prefix) as two:
            for socket, member in (("1.1", ANA), ("1.2", BEN)):
                await one.presence.join("1", "presence-a", socket, member)
            await two.presence.join("1", "presence-a", "2.1", BEN)
            redis.call("CONFIG", "SET", "maxmemory", "1")
            with pytest.raises(BrokerUnavailable, match="Redis is full"):
                await one.broker.publish(Publication("1", "presence-a", b"{}"))

            assert (await one.presence.leave("1", "presence-a", "1.1")).is_last_of_user
            await one.presence.leave("1", "presence-a", "1.2")
            assert [member.user_id for member in await one.presence.members("1", "presence-a")] == ["2"]
            assert await one.presence.count("1", "presence-a") == ChannelCount(1, 1)
            await one.presence.join("1", "presence-a", "1.3", PresenceMember("3"))
            assert {member.user_id for member in await one.presence.members("1", "presence-a")} == {"2", "3"}
            assert await one.presence.count("1", "presence-a") == ChannelCount(2, 2)

            redis.call("CONFIG", "SET", "maxmemory", "0")
            await eventually(lambda: not one.presence._dirty)
            assert {member.user_id for member in await two.presence.members("1", "presence-a")} == {"2", "3"}


async def test_a_full_redis_does_not_cause_repeated_leaves_and_joins() -> None:
    with redis_server() as redis:
        settings = {"reverb_scaling_enabled": True, "redis_url": redis.url}
        async with realtime_server(**settings) as server, connected(server.port) as ana:
            await ana.subscribe("presence-a", {"user_id": "1"})
            async with connected(server.port) as ben:
                await ben.subscribe("presence-a", {"user_id": "2"})
                await ana.expect("pusher_internal:member_added")
                redis.call("CONFIG", "SET", "maxmemory", "1")
            assert (await ana.receive())["event"] == "pusher_internal:member_removed"
            await eventually(lambda: not server.node._members._rechecks)

            assert await ana.is_quiet()


async def test_an_evicting_redis_is_reported_everywhere_and_logged_once(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with redis_server("--maxmemory-policy", "allkeys-lru") as redis:
        settings = {"reverb_scaling_enabled": True, "redis_url": redis.url}
        async with realtime_server(**settings) as server:

            async def is_told() -> bool:
                return "warnings" in (await call(server.port, "GET", "/up")).json()

            await eventually_told(is_told)
            told = (await call(server.port, "GET", "/up")).json()
            assert told["health"] == "OK"
            assert "allkeys-lru" in told["warnings"][0]
            assert (await call(server.port, "GET", "/apps/1001/status")).json()["warnings"] == told["warnings"]
            ready = await observed(server, "/readyz")
            assert ready == (200, "OK\nRedis may evict keys: set maxmemory-policy noeviction\n")
    assert capfd.readouterr().out.count("allkeys-lru") == 1
