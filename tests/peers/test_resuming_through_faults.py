"""Unmodified pusher-js with nothing but a `wsPath` misses nothing, whatever breaks between it and the publisher.

`make test-resume` does it with 200 clients, 200 events a second and 20 rounds of each fault.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx2
import pytest

from kit.balancer import Balancer
from kit.realtime import APP_ID, KEY, SECRET
from kit.redis import RedisServer, fresh_prefix, redis_server
from kit.reverb import Reverb, reverb
from kit.waiting import LIMIT_S
from peers.test_node_clients import Echo, running
from smartlink.protocol.signing import signed_query

ROUNDS = int(os.environ.get("SMARTLINK_RESUME_ROUNDS", "1"))
CLIENTS = 200 if ROUNDS > 1 else 20
CHANNELS = 20 if ROUNDS > 1 else 4
EVENTS_PER_S = 200 if ROUNDS > 1 else 60
CHANNELS_EACH = 2


@dataclass
class Stage:
    """The servers behind a balancer, and the events that were accepted."""

    balancer: Balancer
    servers: list[Reverb]
    redis: RedisServer | None = None
    accepted: dict[str, list[int]] = field(default_factory=dict)
    count: int = 0
    payload: Callable[[int], str] = str
    repeated: set[str] = field(default_factory=set)
    """Numbers that were posted again, because nobody answered: the server may have taken them twice."""

    async def publish_for(self, seconds: float) -> None:
        """Publish in batches of ten, each again until it is accepted. An event's number is its id."""
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        async with httpx2.AsyncClient(verify=False, trust_env=False, timeout=5) as http:
            while loop.time() < until:
                began_at = loop.time()
                batch = []
                for _ in range(10):
                    self.count += 1
                    channel = f"private-c{self.count % CHANNELS}"
                    self.accepted.setdefault(channel, []).append(self.count)
                    batch.append(
                        {"name": "e", "channel": channel, "data": self.payload(self.count), "id": str(self.count)}
                    )
                await self._post(http, json.dumps({"batch": batch}).encode())
                await asyncio.sleep(max(0.0, 10 / EVENTS_PER_S - (loop.time() - began_at)))

    async def publish_until_all_are_back(self, is_ready: Callable[[], bool]) -> None:
        """Publish until the clients are connected, and the servers ready for the next fault.

        A fault that meets a handshake keeps pusher-js away for 15 s, longer than what is kept without a policy.
        """
        async with httpx2.AsyncClient(trust_env=False, timeout=5) as http, asyncio.timeout(LIMIT_S):
            while not is_ready() or await self._connections(http) < CLIENTS:
                await self.publish_for(0.5)

    async def _connections(self, http: httpx2.AsyncClient) -> int:
        path = f"/apps/{APP_ID}/connections"
        query = signed_query(KEY, SECRET, "GET", path, timestamp=int(time.time()))
        try:
            answer = await http.get(f"http://127.0.0.1:{self.servers[0].port}{path}?{query}")
        except httpx2.HTTPError:
            return 0
        return int(answer.json()["connections"]) if answer.status_code == 200 else 0

    async def _post(self, http: httpx2.AsyncClient, body: bytes) -> None:
        path = f"/apps/{APP_ID}/batch_events"
        async with asyncio.timeout(LIMIT_S):
            while True:
                for server in self.servers:
                    query = signed_query(KEY, SECRET, "POST", path, body, timestamp=int(time.time()))
                    try:
                        answer = await http.post(f"http://127.0.0.1:{server.port}{path}?{query}", content=body)
                    except httpx2.HTTPError:
                        self.repeated.update(event["id"] for event in json.loads(body)["batch"])
                        continue
                    if answer.status_code == 200:
                        return
                    assert answer.status_code in (409, 503), answer.text
                await asyncio.sleep(0.05)


@asynccontextmanager
async def stage(servers: list[Reverb], redis: RedisServer | None = None) -> AsyncIterator[tuple[Stage, Echo]]:
    """Clients on all their channels, through a balancer."""
    balancer = Balancer(*(server.port for server in servers))
    await balancer.start()
    try:
        options = {"clients": CLIENTS, "channels": CHANNELS, "channelsEach": CHANNELS_EACH}
        async with running("resuming.mjs", port=balancer.port, **options) as clients:
            clients.do("ready")
            await clients.until("ready")
            yield Stage(balancer, servers, redis), clients
    finally:
        await balancer.stop()


async def judge(stage: Stage, clients: Echo, what: str) -> None:
    """Wait until all have the last event, then count what was lost, overtaken, doubled."""
    clients.do("settled", last={channel: str(numbers[-1]) for channel, numbers in stage.accepted.items()})
    await clients.until("settled")
    clients.do("report")
    report: dict[str, Any] = await clients.until("report")
    lost = overtaken = twice = events = failed = connections = 0
    gaps = []
    for client in report["clients"]:
        failed += client["failed"]
        connections += client["connections"] - 1
        gaps.append(client["longestGapMs"])
        for channel, got in client["got"].items():
            numbers = [int(number) for number in got]
            once = list(dict.fromkeys(numbers))
            events += len(once)
            twice += len(numbers) - len(once)
            lost += len(set(stage.accepted[channel]) - set(once))
            overtaken += sum(later < earlier for earlier, later in pairwise(once))
    sys.stdout.write(
        f"{what}: {events} deliveries, {connections} reconnects, lost {lost}, overtaken {overtaken}, told of a gap "
        f"{failed}, came twice before deduplication {twice}, longest pause {max(gaps):.0f} ms\n"
    )
    assert connections
    assert (lost, overtaken, failed) == (0, 0, 0)


async def through(
    stage: Stage,
    clients: Echo,
    what: str,
    fault: Callable[[], Awaitable[None]],
    is_ready: Callable[[], bool] = lambda: True,
) -> None:
    """Publish, let the fault happen in each round, and judge."""
    await stage.publish_for(2.5)  # at least one barrier
    for _ in range(ROUNDS):
        publishing = asyncio.create_task(stage.publish_for(3))
        await asyncio.sleep(0.5)
        await fault()
        await publishing
        await stage.publish_until_all_are_back(is_ready)
    await judge(stage, clients, what)


@contextmanager
def one_server(folder: Path, *arguments: str, **settings: Any) -> Iterator[Reverb]:
    with reverb(folder, *arguments, **({"reverb_app_ping_interval": 3600} | settings)) as server:
        yield server


@contextmanager
def two_nodes(folder: Path) -> Iterator[tuple[list[Reverb], RedisServer]]:
    with redis_server() as redis, ExitStack() as stack:
        shared = {"reverb_scaling_enabled": True, "redis_url": redis.url, "reverb_scaling_channel": fresh_prefix()}
        servers = []
        for name in ("one", "two"):
            (folder / name).mkdir()
            servers.append(stack.enter_context(one_server(folder / name, **shared)))
        yield servers, redis


@pytest.mark.parametrize("how", ["reset", "line cut"])
async def test_a_line_that_breaks(tmp_path: Path, how: str) -> None:
    with one_server(tmp_path) as server:
        async with stage([server]) as (running_stage, clients):
            balancer = running_stage.balancer

            async def fault() -> None:
                await (balancer.cut() if how == "reset" else balancer.swallow(1.0))

            await through(running_stage, clients, how, fault)


@pytest.mark.skipif(ROUNDS == 1, reason="a page that is frozen for 90 s")
async def test_a_frozen_page(tmp_path: Path) -> None:
    policies = '[{"pattern": "private-*", "history": 2000, "history_ttl_s": 300}]'
    with one_server(tmp_path, reverb_app_ping_interval=30, reverb_app_channels=policies) as server:
        async with stage([server]) as (running_stage, clients):
            await running_stage.publish_for(2.5)
            clients.signal(signal.SIGSTOP)
            try:
                await running_stage.publish_for(90)
            finally:
                clients.signal(signal.SIGCONT)
            await running_stage.publish_for(1)
            await judge(running_stage, clients, "frozen for 90 s")


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_restart_by_command(tmp_path: Path, workers: int) -> None:
    with one_server(tmp_path, "--workers", str(workers)) as server:
        async with stage([server]) as (running_stage, clients):

            async def fault() -> None:
                done = await asyncio.to_thread(server.command, "restart")
                assert done.returncode == 0, done.stderr

            await through(running_stage, clients, f"reverb restart, workers: {workers}", fault)


async def test_a_worker_that_is_killed(tmp_path: Path) -> None:
    with one_server(tmp_path, "--workers", "2") as server:
        async with stage([server]) as (running_stage, clients):

            async def fault() -> None:
                os.kill(server.workers()[0], signal.SIGKILL)

            # A worker that has died several times is started later each time.
            await through(running_stage, clients, "worker killed", fault, lambda: len(server.workers()) == 2)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL], ids=["SIGTERM", "SIGKILL"])
async def test_a_node_that_ends(tmp_path: Path, how: signal.Signals) -> None:
    with two_nodes(tmp_path) as (servers, redis):
        async with stage(servers, redis) as (running_stage, clients):
            turn = 0

            async def fault() -> None:
                nonlocal turn
                server = servers[turn % 2]
                turn += 1
                server.signal(how)
                await asyncio.to_thread(server.wait)
                server.log.unlink()
                await asyncio.to_thread(server.start)

            await through(running_stage, clients, f"node {how.name}", fault)


async def test_redis_that_comes_back_empty(tmp_path: Path) -> None:
    with two_nodes(tmp_path) as (servers, redis):
        async with stage(servers, redis) as (running_stage, clients):

            async def fault() -> None:
                redis.kill()
                await asyncio.to_thread(redis.start)

            await running_stage.publish_for(2.5)
            for _ in range(ROUNDS):
                publishing = asyncio.create_task(running_stage.publish_for(3))
                await asyncio.sleep(0.5)
                await fault()
                await publishing
            # Then the lines break, too: what the sessions had confirmed holds.
            await running_stage.publish_for(6)
            await running_stage.balancer.cut()
            await running_stage.publish_for(1)
            await judge(running_stage, clients, "Redis empty")


async def test_a_rolling_restart_of_two_nodes(tmp_path: Path) -> None:
    with two_nodes(tmp_path) as (servers, redis):
        async with stage(servers, redis) as (running_stage, clients):

            async def fault() -> None:
                for server in servers:
                    server.signal(signal.SIGTERM)
                    await asyncio.to_thread(server.wait)
                    server.log.unlink()
                    await asyncio.to_thread(server.start)

            await through(running_stage, clients, "rolling restart", fault)
