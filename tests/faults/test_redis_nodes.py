"""Several servers joined by Redis, as clients and publishers see them."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from kit import processes
from kit.client import Client, connected
from kit.ports import free_port
from kit.realtime import call, realtime_server
from kit.redis import RedisServer, fresh_prefix, redis_server
from kit.serve import SMARTLINK
from kit.simultaneous_joins import misled, misled_by_leaves
from kit.waiting import LIMIT_S, eventually, eventually_told
from smartlink.server.cluster.brokers.base import Control
from smartlink.server.run.lifecycle import RealtimeServer

ANA, BEN = {"user_id": "1", "user_info": {"name": "Ana"}}, {"user_id": "2"}


@asynccontextmanager
async def nodes(redis: RedisServer, number: int = 2, **settings: Any) -> AsyncIterator[list[RealtimeServer]]:
    """Servers of one cluster."""
    prefix = fresh_prefix()
    async with AsyncExitStack() as stack:
        servers = [
            await stack.enter_async_context(
                realtime_server(
                    reverb_scaling_enabled=True, reverb_scaling_channel=prefix, redis_url=redis.url, **settings
                )
            )
            for _ in range(number)
        ]
        yield servers
        assert [server.metrics.internal_errors for server in servers] == [0] * number


async def publish(server: RealtimeServer, channel: str, data: str, **more: Any) -> int:
    headers = more.pop("headers", None)
    body = json.dumps({"name": "e", "channel": channel, "data": data} | more).encode()
    return (await call(server.port, "POST", "/apps/1001/events", body, headers=headers)).status_code


async def get(server: RealtimeServer, path: str, **params: str) -> Any:
    return (await call(server.port, "GET", f"/apps/1001{path}", params=params)).json()


async def count(client: Client) -> int:
    """How many are on the channel, as the next message of that kind tells."""
    told: int = json.loads((await next_event(client, "pusher_internal:subscription_count"))["data"])[
        "subscription_count"
    ]
    return told


async def next_event(client: Client, event: str) -> dict[str, Any]:
    """The next message of that name, past any other."""
    while (message := await client.receive())["event"] != event:
        pass
    return message


async def test_a_user_joins_and_leaves_once_on_all_nodes(shared_redis: RedisServer) -> None:
    async with nodes(shared_redis, 3) as (one, two, three):
        async with connected(one.port) as watcher, connected(three.port) as other:
            await watcher.subscribe("presence-a", BEN)
            await other.subscribe("presence-a", BEN)
            async with connected(two.port) as first, connected(three.port) as second:
                state = await first.subscribe("presence-a", ANA)
                assert state["presence"] == {"count": 2, "ids": ["2", "1"], "hash": {"2": {}, "1": {"name": "Ana"}}}
                await second.subscribe("presence-a", ANA)
                for client in (watcher, other):
                    added = await client.expect("pusher_internal:member_added")
                    assert json.loads(added["data"]) == ANA
                assert await get(one, "/channels/presence-a/users") == {"users": [{"id": "2"}, {"id": "1"}]}
                counts = await get(two, "/channels/presence-a", info="user_count,subscription_count")
                assert counts == {"occupied": True, "user_count": 2, "subscription_count": 4}
                assert set((await get(three, "/channels"))["channels"]) == {"presence-a"}
                first.send("pusher:unsubscribe", {"channel": "presence-a"})
                assert await first.is_quiet()
                assert await watcher.is_quiet()
            for client in (watcher, other):
                removed = await client.expect("pusher_internal:member_removed")
                assert json.loads(removed["data"]) == {"user_id": "1"}
                assert await client.is_quiet()


async def test_members_joining_at_different_nodes_see_each_other_once(shared_redis: RedisServer) -> None:
    async with nodes(shared_redis) as (one, two):
        assert await misled([one.port, two.port], 40) == []
        assert await misled_by_leaves([one.port, two.port], 40) == []


async def test_events_client_events_and_terminations_cross_nodes(shared_redis: RedisServer) -> None:
    async with nodes(shared_redis) as (one, two), connected(one.port) as ana, connected(two.port) as ben:
        await ana.subscribe("presence-a", ANA)
        await ben.subscribe("presence-a", BEN)
        await ana.expect("pusher_internal:member_added")
        assert await publish(two, "presence-a", "x", socket_id=ben.socket_id) == 200
        assert (await ana.expect("e"))["data"] == "x"
        ana.send("client-typing", {"on": True}, channel="presence-a")
        assert (await ben.expect("client-typing"))["data"] == {"on": True}
        await call(one.port, "POST", "/apps/1001/users/2/terminate_connections", b"{}")

        assert (await ben.closed()).code == 4009
        await ana.expect("pusher_internal:member_removed")


async def test_cached_events_and_idempotency_keys_are_shared_by_all_nodes(shared_redis: RedisServer) -> None:
    async with nodes(shared_redis) as (one, two):
        key = {"Idempotency-Key": "k1"}
        assert await publish(one, "cache-a", "first", headers=key) == 200
        assert await publish(two, "cache-a", "first", headers=key) == 200
        async with connected(two.port) as client:
            await client.subscribe("cache-a")
            assert (await client.expect("e"))["data"] == "first"
            assert await client.is_quiet()
            assert await publish(one, "cache-a", "second", headers={"Idempotency-Key": "k2"}) == 200
            assert await publish(two, "cache-a", "second", headers={"Idempotency-Key": "k2"}) == 200
            assert (await client.expect("e"))["data"] == "second"
            assert await client.is_quiet()


async def test_the_connection_limit_is_cluster_wide(shared_redis: RedisServer) -> None:
    async with nodes(shared_redis, reverb_app_max_connections=2) as (one, two):
        async with connected(one.port), connected(one.port):
            async with connected(two.port) as refused:
                assert refused.socket_id == ""
            assert await get(two, "/connections") == {"connections": 2}


async def test_the_limit_holds_for_simultaneous_connections(shared_redis: RedisServer) -> None:
    async with nodes(shared_redis, reverb_app_max_connections=3) as (one, two), AsyncExitStack() as stack:
        came = [connected(node.port) for node in (one, two) for _ in range(8)]
        clients = await asyncio.gather(*(stack.enter_async_context(client) for client in came))
        accepted = [client for client in clients if client.socket_id]
        assert len(accepted) == 3
        assert all(client.refusal["code"] == 4100 for client in clients if not client.socket_id)  # type: ignore[attr-defined] # set by the kit
        for node in (one, two):
            assert await get(node, "/connections") == {"connections": 3}

        accepted[0].writer.transport.abort()
        await eventually(lambda: one.metrics.connections_closed + two.metrics.connections_closed == 1)
        again = [await stack.enter_async_context(connected(node.port)) for node in (two, one)]
        assert [bool(client.socket_id) for client in again] == [True, False]


async def test_policies_hold_over_nodes_joined_by_redis(shared_redis: RedisServer) -> None:
    policies = [{"pattern": "full", "max_subscribers": 3}, {"pattern": "prices", "conflate_ms": 50}]
    async with nodes(shared_redis, reverb_app_channels=json.dumps(policies)) as (one, two), AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(connected(node.port)) for _ in range(4) for node in (one, two)]
        for client in clients:
            client.send("pusher:subscribe", {"channel": "full"})
        answers = [(await client.receive())["event"] for client in clients]
        assert answers.count("pusher_internal:subscription_succeeded") == 3
        assert answers.count("pusher:subscription_error") == 5

        for client in clients[:2]:
            await client.subscribe("prices")
        for number in range(30):
            assert await publish(one, "prices", str(number)) == 200
        for client in clients[:2]:
            got: list[int] = []
            while 29 not in got:
                got.append(int((await client.expect("e"))["data"]))
            assert got[0] == 0
            assert got == sorted(set(got))


@pytest.mark.usefixtures("impatient")
async def test_clients_stay_connected_during_an_outage_and_all_works_afterwards() -> None:
    with redis_server() as redis:
        async with nodes(redis) as (one, two), connected(one.port) as ana, connected(two.port) as ben:
            await ana.subscribe("presence-a", ANA)
            await ben.subscribe("presence-a", BEN)
            await ana.expect("pusher_internal:member_added")
            redis.kill()
            await eventually(lambda: not one.node.is_connected and not two.node.is_connected)

            assert await publish(one, "presence-a", "lost") == 503
            async with connected(one.port) as cleo:
                await cleo.subscribe("presence-a", {"user_id": "3"})
                await ana.expect("pusher_internal:member_added")
                cleo.send("client-hi", {}, channel="presence-a")
                await ana.expect("client-hi")
                redis.start()
                await eventually(lambda: one.node.is_connected and two.node.is_connected)
                added = await next_event(ben, "pusher_internal:member_added")
                assert json.loads(added["data"])["user_id"] == "3"
                assert await publish(two, "presence-a", "found") == 200
                assert (await next_event(ana, "e"))["data"] == "found"
                assert (await next_event(ben, "e"))["data"] == "found"
                users = await get(one, "/channels/presence-a/users")
                assert {user["id"] for user in users["users"]} == {"1", "2", "3"}
            await next_event(ben, "pusher_internal:member_removed")


async def test_subscribers_of_a_channel_with_missed_events_reconnect(shared_redis: RedisServer) -> None:
    async with nodes(shared_redis, 1) as (node,), connected(node.port) as missing, connected(node.port) as other:
        await missing.subscribe("chat")
        await other.subscribe("elsewhere")
        node.node.deliver(Control("1001", "missed", "chat"))

        assert (await missing.closed()).code == 4200
        assert await other.is_quiet()


def start_node(environment: dict[str, str], folder: Path) -> subprocess.Popen[bytes]:
    """One more node, in a process of its own."""
    with (folder / "log").open("wb") as log:
        return processes.popen([SMARTLINK, "reverb", "start"], cwd=folder, env=environment, stdout=log, stderr=log)


async def until_it_listens(port: int, process: subprocess.Popen[bytes], folder: Path) -> None:
    async def listens() -> bool:
        assert process.poll() is None, (folder / "log").read_text()
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except ConnectionRefusedError:
            return False
        writer.close()
        return True

    await eventually_told(listens, what="a node that listens")


async def test_a_killed_nodes_members_are_removed_within_ten_seconds(shared_redis: RedisServer, tmp_path: Path) -> None:
    port = free_port()
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("REVERB_", "REDIS_"))}
    async with nodes(shared_redis, 1, reverb_app_subscription_counts=True) as (node,), connected(node.port) as ben:
        environment |= {
            "REVERB_APP_SUBSCRIPTION_COUNTS": "true",
            "REVERB_SERVER_PORT": str(port),
            "REVERB_SERVER_WORKERS": "1",  # the process is the node
            "REVERB_SCALING_ENABLED": "true",
            "REVERB_SCALING_CHANNEL": node.settings.reverb_scaling_channel,
            "REDIS_URL": shared_redis.url,
        }
        process = start_node(environment, tmp_path)
        try:
            await until_it_listens(port, process, tmp_path)
            await ben.subscribe("presence-a", BEN)
            async with connected(port) as ana:
                await ana.subscribe("presence-a", ANA)
                await ben.expect("pusher_internal:member_added")
                await ana.subscribe("chat")
                assert await count(ana) == 1
                await ben.subscribe("chat")
                assert await count(ben) == 2
                process.send_signal(signal.SIGKILL)
                async with asyncio.timeout(LIMIT_S):
                    last = {(await ben.receive())["event"], (await ben.receive())["event"]}
            assert last == {"pusher_internal:member_removed", "pusher_internal:subscription_count"}
            users = await get(node, "/channels/presence-a/users")
            assert users == {"users": [{"id": "2"}]}
        finally:
            process.kill()
            process.wait(LIMIT_S)
