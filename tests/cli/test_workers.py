"""Several workers on one port, as real processes: they act as one server, also after crashes and restarts."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from kit.client import Client, Closed, connected
from kit.realtime import call
from kit.reverb import Reverb, reverb
from kit.waiting import LIMIT_S, eventually, eventually_told
from smartlink.server.run.supervisor import SILENT_S, TICK_S

MANY = 16
"""Connections of which some are on each of two workers: all on one happens once in 32,768 times."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Reverb]:
    with reverb(tmp_path, "--workers", "2") as running:
        yield running


@asynccontextmanager
async def clients(port: int, count: int = MANY) -> AsyncIterator[list[Client]]:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(connected(port)) for _ in range(count)]


async def publish(port: int, channel: str, name: str, data: str = "") -> None:
    body = json.dumps({"name": name, "channel": channel, "data": data}).encode()
    assert (await call(port, "POST", "/apps/1001/events", body)).status_code == 200


async def get(port: int, path: str, **params: str) -> Any:
    answer = await call(port, "GET", f"/apps/1001{path}", params=params)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_presence_counts_and_members_cover_all_workers(server: Reverb) -> None:
    async with clients(server.port) as all_of_them:
        for number, client in enumerate(all_of_them):
            state = await client.subscribe("presence-chat", {"user_id": str(number)})
            assert state["presence"]["count"] == number + 1
        for number, client in enumerate(all_of_them):
            added = [
                json.loads((await client.expect("pusher_internal:member_added"))["data"])["user_id"]
                for _ in range(MANY - number - 1)
            ]
            assert added == [str(later) for later in range(number + 1, MANY)]
        for _ in range(4):
            users = await get(server.port, "/channels/presence-chat/users")
            assert {user["id"] for user in users["users"]} == {str(number) for number in range(MANY)}
            counts = await get(server.port, "/channels/presence-chat", info="user_count,subscription_count")
            assert (counts["user_count"], counts["subscription_count"]) == (MANY, MANY)
            assert (await get(server.port, "/connections"))["connections"] == MANY

        for client in all_of_them[1:]:
            client.writer.transport.abort()
        gone = {
            json.loads((await all_of_them[0].expect("pusher_internal:member_removed"))["data"])["user_id"]
            for _ in range(MANY - 1)
        }
        assert gone == {str(number) for number in range(1, MANY)}


async def test_a_cache_channel_keeps_the_last_event_sent_to_all(server: Reverb) -> None:
    for number in range(40):
        channel = f"cache-{number}"
        async with connected(server.port) as client:
            await client.subscribe(channel)
            await client.expect("pusher:cache_miss")
            await asyncio.gather(*(publish(server.port, channel, "e", str(one)) for one in range(4)))
            heard = [(await client.expect("e"))["data"] for _ in range(4)]
            kept = await get(server.port, f"/channels/{channel}", info="cache")

        assert kept["cache"]["data"] == heard[-1]


async def test_every_subscriber_receives_every_event_once_in_one_order(server: Reverb) -> None:
    async with clients(server.port) as all_of_them:
        for client in all_of_them:
            await client.subscribe("chat")

        async def publish_many(publisher: int) -> None:
            for number in range(25):
                await publish(server.port, "chat", f"{publisher}.{number}")

        await asyncio.gather(*(publish_many(publisher) for publisher in range(4)))
        heard = [[(await client.receive())["event"] for _ in range(100)] for client in all_of_them]

        assert all(one == heard[0] for one in heard)
        for publisher in range(4):
            own = [name for name in heard[0] if name.startswith(f"{publisher}.")]
            assert own == [f"{publisher}.{number}" for number in range(25)]


async def test_client_events_reach_other_workers_and_not_their_sender(server: Reverb) -> None:
    async with clients(server.port) as all_of_them:
        for client in all_of_them:
            await client.subscribe("private-a")
        all_of_them[0].send("client-hello", {"a": 1}, channel="private-a")

        for client in all_of_them[1:]:
            assert (await client.expect("client-hello"))["data"] == {"a": 1}
        assert await all_of_them[0].is_quiet()


async def test_terminating_a_user_reaches_all_workers(server: Reverb) -> None:
    async with clients(server.port) as all_of_them:
        for client in all_of_them:
            await client.subscribe("presence-chat", {"user_id": "7"})
        answer = await call(server.port, "POST", "/apps/1001/users/7/terminate_connections", b"{}")

        assert answer.status_code == 200
        assert {(await client.closed()).code for client in all_of_them} == {4009}


async def test_a_repeated_call_is_executed_once_at_whichever_worker(server: Reverb) -> None:
    body = b'{"name":"once","channel":"chat","data":""}'
    async with connected(server.port) as client:
        await client.subscribe("chat")
        for _ in range(12):
            answer = await call(server.port, "POST", "/apps/1001/events", body, headers={"Idempotency-Key": "k"})
            assert answer.status_code == 200

        await client.expect("once")
        assert await client.is_quiet()


async def test_members_of_a_killed_worker_come_back_within_their_grace_unnoticed(tmp_path: Path) -> None:
    policies = '[{"pattern": "presence-*", "presence_grace_s": 300}]'
    with reverb(tmp_path, "--workers", "2", reverb_app_channels=policies) as server:
        async with AsyncExitStack() as stack:

            async def member(number: int) -> Client:
                session = f"a-session-token-of-the-tests-{number}"
                client = await stack.enter_async_context(connected(server.port, session=session))
                await client.subscribe("presence-chat", {"user_id": str(number)})
                return client

            members = [await member(number) for number in range(MANY)]
            os.kill(server.workers()[0], signal.SIGKILL)

            async def heard(client: Client, until: str) -> list[str] | None:
                """The members' comings and goings before an event; None when the connection ended."""
                changes: list[str] = []
                try:
                    while (message := await client.receive())["event"] != until:
                        if message["event"] == "pusher_internal:member_removed":
                            changes.append(message["data"])
                except Closed:
                    return None
                return changes

            listening = [asyncio.create_task(heard(client, "last")) for client in members]
            await eventually(lambda: any(each.done() for each in listening))
            lost = [number for number, each in enumerate(listening) if each.done()]
            for number in lost:
                await member(number)
            await publish(server.port, "presence-chat", "last")
            changes = [each for each in await asyncio.gather(*listening) if each is not None]

            assert 0 < len(changes) < MANY
            assert not any(changes)
            users = await get(server.port, "/channels/presence-chat/users")
            assert {user["id"] for user in users["users"]} == {str(number) for number in range(MANY)}


async def test_a_killed_workers_members_leave_and_it_is_replaced(server: Reverb) -> None:
    victim, survivor = server.workers()
    async with clients(server.port) as all_of_them:
        for number, client in enumerate(all_of_them):
            await client.subscribe("presence-chat", {"user_id": str(number)})
        os.kill(victim, signal.SIGKILL)

        async def are_there() -> set[str]:
            answer = await get(server.port, "/channels/presence-chat/users")
            return {user["id"] for user in answer["users"]}

        async def is_noticed() -> bool:
            return len(await are_there()) < MANY

        await eventually_told(is_noticed)
        ended = {str(number) for number in range(MANY)} - await are_there()
        assert 0 < len(ended) < MANY

        async def listen(client: Client) -> list[str] | None:
            """The users that were heard leaving, as many as left; None when the connection ended."""
            gone: list[str] = []
            try:
                while len(gone) < len(ended):
                    if (message := await client.receive())["event"] == "pusher_internal:member_removed":
                        gone.append(json.loads(message["data"])["user_id"])
            except Closed:
                return None
            return gone

        heard = await asyncio.gather(*(listen(client) for client in all_of_them))
        assert {str(number) for number, gone in enumerate(heard) if gone is None} == ended
        assert all(gone is None or set(gone) == ended for gone in heard)
        assert await are_there() == {str(number) for number in range(MANY)} - ended
    await eventually(lambda: len(server.workers()) == 2)
    assert survivor in server.workers()

    async def both_serve() -> bool:
        return bool((await get(server.port, "/status"))["workers"] == 2)

    await eventually_told(both_serve)
    async with clients(server.port) as newcomers:
        for client in newcomers:
            await client.subscribe("chat")
        await publish(server.port, "chat", "e")
        for client in newcomers:
            await client.expect("e")


async def test_a_frozen_worker_is_replaced_within_ten_seconds(server: Reverb) -> None:
    stuck, _ = server.workers()
    os.kill(stuck, signal.SIGSTOP)

    await eventually(lambda: stuck not in server.workers())
    assert SILENT_S + TICK_S < 10
    await eventually(lambda: len(server.workers()) == 2)

    assert "not responding, killed" in server.said


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("workers", [1, 2])
async def test_a_stop_tells_every_client_to_reconnect_and_exits_with_0(tmp_path: Path, how: int, workers: int) -> None:
    with reverb(tmp_path, "--workers", str(workers)) as server:
        async with clients(server.port) as all_of_them, httpx2.AsyncClient(verify=False, trust_env=False) as http:
            url = f"http://127.0.0.1:{server.port}/up"
            assert (await http.get(url)).status_code == 200
            server.signal(how)
            assert {(await client.closed()).code for client in all_of_them} == {4200}
            # The clients have not answered: the server waits for them, and says meanwhile that it is ending.
            answer = await http.get(url)
            assert answer.status_code == 503
            assert answer.headers["connection"] == "close"
            for client in all_of_them:
                client.send_frame(8, (4200).to_bytes(2, "big"))
            code = await asyncio.to_thread(server.wait)

        assert code == 0


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_second_signal_ends_at_once(tmp_path: Path, workers: int) -> None:
    with reverb(tmp_path, "--workers", str(workers), reverb_server_drain_seconds=300) as server:
        processes = [server.process.pid, *server.workers()]
        async with clients(server.port, 4):
            server.signal(signal.SIGTERM)
            # A stop is told by 503, or by the end of the connection that asks.
            with contextlib.suppress(httpx2.ReadError, httpx2.RemoteProtocolError):
                async with httpx2.AsyncClient(verify=False, trust_env=False) as http:
                    while (await http.get(f"http://127.0.0.1:{server.port}/up")).status_code == 200:
                        await asyncio.sleep(0.01)
            server.signal(signal.SIGTERM)
            code = await asyncio.to_thread(server.wait, LIMIT_S)
            await eventually(lambda: not any(_is_alive(pid) for pid in processes))

        assert code == -signal.SIGTERM


async def test_workers_end_when_their_parent_is_killed(server: Reverb) -> None:
    workers = server.workers()
    async with clients(server.port, 4) as all_of_them:
        server.signal(signal.SIGKILL)

        assert {(await client.closed()).code for client in all_of_them} == {4200}
        for client in all_of_them:
            client.send_frame(8, (4200).to_bytes(2, "big"))
    server.wait()
    await eventually(lambda: not any(_is_alive(pid) for pid in workers))


def _is_alive(pid: int) -> bool:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False
