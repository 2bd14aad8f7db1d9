"""`smartlink tail`, `explain` and `bench` against a server of two workers, as real processes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from kit import processes
from kit.client import connected
from kit.realtime import call
from kit.receiver import receiver
from kit.redis import redis_server
from kit.reverb import Reverb, reverb
from kit.serve import SMARTLINK, running
from kit.waiting import LIMIT_S

HOSTILE = "\x1b[31mred\x07\u202etxt"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reverb]:
    with reverb(tmp_path_factory.mktemp("tail"), "--workers", "2") as running:
        yield running


def smartlink(server: Reverb, *words: str, **environment: str) -> Any:
    return processes.run(
        [SMARTLINK, *words], cwd=server.folder, env=server.environment | environment, capture_output=True, text=True
    )


@asynccontextmanager
async def tailing(server: Reverb, *words: str) -> AsyncIterator[asyncio.StreamReader]:
    """The output of a tail that watches."""
    process = await processes.spawn(
        SMARTLINK, "tail", *words, cwd=server.folder, env=server.environment,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        async with asyncio.timeout(LIMIT_S):
            assert b"Watching" in await process.stderr.readline()
            yield process.stdout
    finally:
        process.send_signal(signal.SIGINT)
        assert await process.wait() == 0, await process.stderr.read()


async def publish(server: Reverb, channel: str, name: str = "placed", data: str = "{}") -> None:
    body = json.dumps({"name": name, "channel": channel, "data": data}).encode()
    assert (await call(server.port, "POST", "/apps/1001/events", body)).status_code == 200


async def test_tail_shows_what_happens_on_all_workers(server: Reverb) -> None:
    async with tailing(server, "--json", "--kind", "connect") as output:
        workers: set[str] = set()
        while len(workers) < 2:
            async with connected(server.port) as client:
                entry = json.loads(await output.readline())
                assert (entry["kind"], entry["socket_id"]) == ("connect", client.socket_id)
                workers.add(entry["node"])

    assert {int(worker.rpartition(":")[2]) for worker in workers} == set(server.workers())


async def test_tail_shows_only_what_it_is_asked_for(server: Reverb) -> None:
    async with tailing(server, "orders.*", "--event", "pl*", "--app", "1001", "--json") as output:
        await publish(server, "chat")
        await publish(server, "orders.1", "shipped")
        await publish(server, "orders.2", data='{"id":7}')
        entry = json.loads(await output.readline())

    assert (entry["channel"], entry["event"], entry["data"]) == ("orders.2", "placed", '{"id":7}')


async def test_tail_writes_nothing_that_steers_the_terminal(server: Reverb) -> None:
    async with tailing(server, "orders.*") as output:
        await publish(server, "orders.1", data=HOSTILE)
        line = (await output.readline()).decode()

    assert "�[31mred��txt" in line
    assert not set(line) & {"\x1b", "\x07", "\u202e"}


async def test_explain_tells_facts_and_refusals(server: Reverb) -> None:
    async with connected(server.port) as client:
        client.send("pusher:subscribe", {"channel": "private-x", "auth": "app-key:forged"})
        await client.expect("pusher:subscription_error")

        told = await asyncio.to_thread(smartlink, server, "explain", "private-x")
        as_json = await asyncio.to_thread(smartlink, server, "explain", client.socket_id, "--json")

    assert told.returncode == 0, told.stderr
    assert "Nobody is subscribed" in told.stdout
    assert "Invalid signature" in told.stdout
    assert json.loads(as_json.stdout)["facts"][0].startswith("It is connected since")


def test_explain_of_something_unknown_ends_with_1(server: Reverb) -> None:
    told = smartlink(server, "explain", "nobody-knows-this")

    assert told.returncode == 1
    assert "Nobody is subscribed" in told.stdout


def test_bench_measures_and_names_a_limit(server: Reverb) -> None:
    told = smartlink(server, "bench", "--connections", "5", "--json")

    assert told.returncode == 0, told.stderr
    result = json.loads(told.stdout)
    assert result["connections"] == 5
    assert min(result["connects_per_s"], result["deliveries_per_s"], result["p50_ms"]) > 0
    assert result["p99_ms"] >= result["p50_ms"]
    assert result["limit"]


def test_without_a_server_the_commands_say_so(tmp_path: Path) -> None:
    environment = os.environ | {"REVERB_SERVER_RUNTIME_DIR": str(tmp_path / "run")}
    for words in (["tail"], ["explain", "x"]):
        told = processes.run([SMARTLINK, *words], cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert told.returncode == 3
        assert "smartlink reverb start" in told.stderr
        assert "Traceback" not in told.stderr


def test_a_wrong_kind_is_named(server: Reverb) -> None:
    told = smartlink(server, "tail", "--kind", "nonsense")

    assert told.returncode == 1
    assert "'nonsense' is no kind" in told.stderr


async def test_over_redis_tail_and_explain_see_other_machines_nodes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    with redis_server() as redis:
        settings = {"reverb_scaling_enabled": True, "redis_url": redis.url}
        with (
            reverb(tmp_path / "one", "--workers", "1", **settings) as one,
            reverb(tmp_path / "two", "--workers", "1", **settings) as two,
        ):
            async with tailing(one, "--json") as output, connected(two.port) as client:
                entry = json.loads(await output.readline())
                assert (entry["kind"], entry["socket_id"]) == ("connect", client.socket_id)

                told = await asyncio.to_thread(smartlink, one, "explain", client.socket_id)
                assert told.returncode == 0, told.stdout + told.stderr


async def test_tail_shows_webhooks_that_the_parent_delivers(tmp_path: Path) -> None:
    async with receiver(then=500) as target:
        settings = {
            "reverb_webhook_url": target.url,
            "reverb_webhook_allow_http": "true",
            "reverb_webhook_allow_private": "true",
        }
        with reverb(tmp_path, "--workers", "2", **settings) as server:
            async with tailing(server, "--json", "--kind", "webhook") as output, connected(server.port) as client:
                await client.subscribe("room")
                entry = json.loads(await output.readline())

    assert (entry["kind"], entry["event"], entry["app_id"]) == ("webhook", "retried", "1001")
    assert "http://127.0.0.1/hook: " in entry["why"]


def test_explain_reaches_the_server_of_smartlink_serve(tmp_path: Path) -> None:
    with running(tmp_path, reverb_server_runtime_dir=tmp_path / "run") as system:
        told = processes.run(
            [SMARTLINK, "explain", "presence-online"],
            cwd=tmp_path,
            env=system.environment,
            capture_output=True,
            text=True,
        )
        assert "It is a presence channel" in told.stdout, told.stderr
    assert list((tmp_path / "run").iterdir()) == []


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_a_server_that_stops_ends_the_tails_of_it(tmp_path: Path, workers: str) -> None:
    with reverb(tmp_path, "--workers", workers) as server:
        process = await processes.spawn(
            SMARTLINK, "tail", cwd=tmp_path, env=server.environment,
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert process.stderr is not None
        async with asyncio.timeout(LIMIT_S):
            assert b"Watching" in await process.stderr.readline()
            server.signal(signal.SIGTERM)
            assert await asyncio.to_thread(server.wait) == 0
            said = await process.stderr.read()
            assert await process.wait() == 1
    assert b"ended the connection" in said
