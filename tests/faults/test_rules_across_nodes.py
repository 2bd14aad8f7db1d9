"""Rules that several servers easily break: two machines of two workers each, joined by Redis."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import pytest

from kit.client import Client, connected
from kit.realtime import KEY, SECRET, call
from kit.redis import RedisServer, fresh_prefix, redis_server
from kit.reverb import Reverb, reverb
from kit.waiting import LIMIT_S, eventually, eventually_told
from smartlink.protocol.signing import sign_channel, sign_user

EACH = 8
"""Connections to each machine; all on one of its workers happens once in 128 times, and would prove less, not fail."""


@dataclass(frozen=True, slots=True)
class Machines:
    redis: RedisServer
    prefix: str
    one: Reverb
    two: Reverb


@contextmanager
def machines(folder: Path, **settings: Any) -> Iterator[Machines]:
    with redis_server() as redis:
        prefix = fresh_prefix()
        shared = {
            "reverb_scaling_enabled": True,
            "reverb_scaling_channel": prefix,
            "redis_url": redis.url,
            "reverb_app_subscription_counts": True,
        } | settings
        for name in ("one", "two"):
            (folder / name).mkdir()
        with (
            reverb(folder / "one", "--workers", "2", **shared) as one,
            reverb(folder / "two", "--workers", "2", **shared) as two,
        ):
            yield Machines(redis, prefix, one, two)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    with machines(tmp_path_factory.mktemp("machines")) as running:
        yield running


@asynccontextmanager
async def clients(*machines: Reverb, each: int = EACH) -> AsyncIterator[list[Client]]:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(connected(machine.port)) for _ in range(each) for machine in machines]


async def publish(machine: Reverb, channel: str, data: str, **headers: str) -> httpx2.Response:
    body = json.dumps({"name": "e", "channel": channel, "data": data}).encode()
    return await call(machine.port, "POST", "/apps/1001/events", body, headers=headers)


async def get(machine: Reverb, path: str, **params: str) -> Any:
    answer = await call(machine.port, "GET", f"/apps/1001{path}", params=params)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def next_event(client: Client, event: str) -> dict[str, Any]:
    """The next message of that name, past any other."""
    while (message := await client.receive())["event"] != event:
        pass
    return message


def users(number: int) -> dict[str, list[dict[str, str]]]:
    return {"users": [{"id": str(user)} for user in range(number)]}


# Presence, counts and lists are of all nodes, and nodes hear only what they need


async def test_presence_lists_and_member_events_cover_all_nodes(pair: Machines) -> None:
    async with clients(pair.one, pair.two) as watching:
        for client in watching:
            await client.subscribe("presence-list", {"user_id": "0"})
        async with clients(pair.two, pair.one, each=2) as ana:
            for client in ana:
                state = await client.subscribe("presence-list", {"user_id": "1"})
                assert state["presence"]["ids"] == ["0", "1"]
            for client in watching:
                assert json.loads((await client.expect("pusher_internal:member_added"))["data"])["user_id"] == "1"
                assert await client.is_quiet()
        for client in watching:
            assert json.loads((await client.expect("pusher_internal:member_removed"))["data"]) == {"user_id": "1"}
            assert await client.is_quiet()


async def test_a_user_id_keeps_its_json_type_at_every_node(pair: Machines) -> None:
    async with clients(pair.one, pair.two, each=4) as watching:
        for client in watching:
            await client.subscribe("presence-typed", {"user_id": "0"})
        async with clients(pair.two, pair.one, each=2) as ana:
            for number, client in enumerate(ana):
                state = await client.subscribe("presence-typed", {"user_id": 1 if number % 2 == 0 else "1"})
                assert state["presence"]["ids"] == ["0", 1]
            for client in watching:
                while (user_id := json.loads((await client.receive())["data"]).get("user_id")) == "0":
                    pass  # the first of those who watch, told at the other node after others of them came
                assert user_id == 1
        for client in watching:
            assert json.loads((await client.expect("pusher_internal:member_removed"))["data"]) == {"user_id": 1}


async def test_user_count_is_not_summed_over_nodes(pair: Machines) -> None:
    async with clients(pair.one, pair.two) as tabs:
        for client in tabs:
            await client.subscribe("presence-sum", {"user_id": "0"})
        for machine in (pair.one, pair.two):
            counts = await get(machine, "/channels/presence-sum", info="user_count,subscription_count")
            assert counts == {"occupied": True, "user_count": 1, "subscription_count": 2 * EACH}


async def test_nodes_without_the_channel_report_its_users(pair: Machines) -> None:
    async with clients(pair.one, each=1) as (ana,):
        await ana.subscribe("presence-there", {"user_id": "0"})
        for _ in range(4):
            assert await get(pair.two, "/channels/presence-there/users") == users(1)
            assert await get(pair.one, "/channels/presence-there/users") == users(1)


async def test_a_node_subscribes_in_redis_only_to_channels_with_subscribers(pair: Machines) -> None:
    async def nodes_that_hear() -> list[int]:
        names = pair.redis.call("PUBSUB", "CHANNELS", f"{pair.prefix}:b:*1001:only-*")
        assert isinstance(names, list)
        counts = pair.redis.call("PUBSUB", "NUMSUB", *[name.decode() for name in names])
        assert isinstance(counts, list)
        return counts[1::2]

    assert await nodes_that_hear() == []
    async with clients(pair.one, each=1) as (ana,), clients(pair.two, each=1) as (ben,):
        await ana.subscribe("only-one")
        await ben.subscribe("only-two")
        assert await nodes_that_hear() == [1, 1]
        assert (await publish(pair.two, "only-one", "x")).status_code == 200
        await next_event(ana, "e")
        assert await _event_before_pong(ben) == "pusher:pong"

    async def is_quiet() -> bool:
        return await nodes_that_hear() == []

    await eventually_told(is_quiet)


async def _event_before_pong(client: Client) -> str:
    """The name of the next message, counts aside; that of the answer to a ping when there is none."""
    client.send("pusher:ping", {})
    while (name := (await client.receive())["event"]) == "pusher_internal:subscription_count":
        pass
    return str(name)


# Sign-ins and watchlists are of all nodes


async def test_watchlists_cover_all_nodes(pair: Machines) -> None:
    async with clients(pair.one, pair.two, each=4) as watching:
        for number, watcher in enumerate(watching):
            await watcher.sign_in(f"watcher-{number}", watchlist=["seen"])
            await watcher.expect("pusher_internal:watchlist_events")
        async with clients(pair.one, pair.two, each=1) as (here, there):
            for client in (here, there):
                await client.sign_in("seen")
                for machine in (pair.one, pair.two):
                    assert (await publish(machine, "#server-to-user-seen", "x")).status_code == 200
                    assert (await client.receive())["data"] == "x"
                    assert client is here or (await here.receive())["data"] == "x"
            for watcher in watching:
                data = json.loads((await watcher.expect("pusher_internal:watchlist_events"))["data"])
                assert data == {"events": [{"name": "online", "user_ids": ["seen"]}]}
                assert await watcher.is_quiet()
            answer = await call(pair.two.port, "POST", "/apps/1001/users/seen/terminate_connections", b"{}")
            assert answer.status_code == 200
            assert [(await client.closed()).code for client in (here, there)] == [4009, 4009]
        for watcher in watching:
            data = json.loads((await watcher.expect("pusher_internal:watchlist_events"))["data"])
            assert data == {"events": [{"name": "offline", "user_ids": ["seen"]}]}


# Calls, counts and returns are of all nodes, also while Redis is away


async def test_a_repeated_call_is_executed_once_at_whichever_node(pair: Machines) -> None:
    async with clients(pair.one, pair.two) as everybody:
        for client in everybody:
            await client.subscribe("cache-once")
            await next_event(client, "pusher:cache_miss")
        for machine in (pair.one, pair.two) * 3:
            assert (await publish(machine, "cache-once", "x", **{"Idempotency-Key": "k"})).status_code == 200
        for client in everybody:
            assert (await next_event(client, "e"))["data"] == "x"
            assert await _event_before_pong(client) == "pusher:pong"
        async with clients(pair.two, pair.one, each=2) as late:
            for client in late:
                await client.subscribe("cache-once")
                assert (await next_event(client, "e"))["data"] == "x"


async def test_subscription_counts_cover_all_nodes(pair: Machines) -> None:
    async with clients(pair.one, pair.two, each=4) as everybody:
        for client in everybody:
            await client.subscribe("counted")
        for client in everybody:
            while json.loads((await next_event(client, "pusher_internal:subscription_count"))["data"]) != {
                "subscription_count": 8
            }:
                pass


class Observer:
    """What one client knows of others, from what it is told alone."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.members: set[str] = set()
        self.online: set[str] = set()
        self.count = 0

    async def follow(self) -> None:
        while True:
            message = await self.client.receive()
            data = json.loads(message["data"])
            match message["event"].removeprefix("pusher_internal:"):
                case "subscription_succeeded" if "presence" in data:
                    self.members = set(data["presence"]["ids"])
                case "member_added":
                    self.members.add(data["user_id"])
                case "member_removed":
                    self.members.discard(data["user_id"])
                case "subscription_count":
                    self.count = data["subscription_count"]
                case "watchlist_events":
                    for event in data["events"]:
                        change = self.online.update if event["name"] == "online" else self.online.difference_update
                        change(event["user_ids"])


def hop_on(client: Client, user_id: str, **more: Any) -> None:
    """Sign in and join two channels, all said at once."""
    user_data = json.dumps({"id": user_id} | more)
    client.send("pusher:signin", {"auth": sign_user(KEY, SECRET, client.socket_id, user_data), "user_data": user_data})
    auth = sign_channel(KEY, SECRET, client.socket_id, "presence-hop", None)
    client.send("pusher:subscribe", {"channel": "presence-hop", "auth": auth})
    client.send("pusher:subscribe", {"channel": "hop"})


async def test_a_member_who_moves_between_machines_is_present_in_the_end(pair: Machines) -> None:
    async with clients(pair.one, pair.two, each=1) as watching, AsyncExitStack() as stack, asyncio.TaskGroup() as group:
        observers = [Observer(client) for client in watching]
        following = [group.create_task(observer.follow()) for observer in observers]
        for number, observer in enumerate(observers):
            hop_on(observer.client, f"observer-{number}", watchlist=["hopper"])
        here = await stack.enter_async_context(connected(pair.one.port))
        hop_on(here, "hopper")

        def all_know() -> bool:
            return all(
                ("hopper" in each.members, each.online, each.count) == (True, {"hopper"}, 3) for each in observers
            )

        await eventually(all_know)
        for hop in range(30):
            there = await stack.enter_async_context(connected((pair.one if hop % 2 else pair.two).port))
            here.writer.transport.abort()
            hop_on(there, "hopper")
            await there.receive()
            await eventually(all_know)
            here = there
        for task in following:
            task.cancel()


async def test_nodes_survive_and_report_an_outage_of_redis_that_returns_empty(pair: Machines) -> None:
    async def say_all(health: str) -> bool:
        """Whether both nodes serve, and say so of the bus between them."""
        async with httpx2.AsyncClient(verify=False, trust_env=False, timeout=LIMIT_S) as http:
            answers = [await http.get(f"http://127.0.0.1:{machine.port}/up") for machine in (pair.one, pair.two) * 4]
        assert {answer.status_code for answer in answers} == {200}
        return {answer.json()["health"] for answer in answers} == {health}

    async def is_taken(machine: Reverb) -> bool:
        answer = await publish(machine, "presence-a", "found")
        assert answer.status_code in (200, 503)
        return answer.status_code == 200

    async with clients(pair.one, pair.two, each=4) as everybody:
        for number, client in enumerate(everybody):
            await client.subscribe("presence-a", {"user_id": str(number)})
        pair.redis.kill()
        try:
            await eventually_told(lambda: say_all("degraded"))
            refused = await publish(pair.one, "presence-a", "refused")
            assert (refused.status_code, "retry-after" in refused.headers) == (503, True)
            # That nobody else is at the worker of the first happens once in 32,768 times.
            async with clients(pair.one, each=16) as near:
                for client in near:
                    await client.subscribe("private-near")
                near[0].send("client-near", {}, channel="private-near")
                assert await _event_before_pong(near[0]) == "pusher:pong"
                heard = {await _event_before_pong(client) for client in near[1:]}
                assert "client-near" in heard <= {"client-near", "pusher:pong"}
        finally:
            pair.redis.start()
        await eventually_told(lambda: say_all("OK"))
        for machine in (pair.one, pair.two):
            # A worker that none of those calls met may be back later than the others, and refuses until then.
            await eventually_told(partial(is_taken, machine))
        for client in everybody:
            for _ in range(2):
                assert (await next_event(client, "e"))["data"] == "found"

        async def are_all_there() -> bool:
            found = [await get(machine, "/channels/presence-a/users") for machine in (pair.one, pair.two) * 2]
            return all({user["id"] for user in each["users"]} == {str(n) for n in range(8)} for each in found)

        await eventually_told(are_all_there)
