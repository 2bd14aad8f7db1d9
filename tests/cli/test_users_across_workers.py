"""Signed-in users across several workers, as real processes: they act as one server."""

from __future__ import annotations

import json
from contextlib import AsyncExitStack, suppress
from pathlib import Path

from kit.client import Client, Closed, connected
from kit.realtime import KEY, SECRET, call
from kit.reverb import reverb
from kit.simultaneous_joins import flap, misled, misled_by_leaves
from smartlink.protocol.signing import sign_channel

MANY = 12
"""Connections of which some are on each of two workers: all on one happens once in 2,048 times."""


async def watchlist(client: Client) -> dict[str, list[str]]:
    data = json.loads((await client.expect("pusher_internal:watchlist_events"))["data"])
    return {event["name"]: event["user_ids"] for event in data["events"]}


async def test_all_workers_know_who_is_online_and_whose_connections_were_ended(tmp_path: Path) -> None:
    ids = [f"u{number}" for number in range(MANY)]
    with reverb(tmp_path, "--workers", "2") as server:
        async with AsyncExitStack() as stack:
            watchers = [await stack.enter_async_context(connected(server.port)) for _ in range(MANY)]
            for number, watcher in enumerate(watchers):
                await watcher.sign_in(f"w{number}", watchlist=ids)
                assert await watchlist(watcher) == {"offline": ids}
            for user_id in ids:
                users = await stack.enter_async_context(connected(server.port))
                await users.sign_in(user_id)
                for watcher in watchers:
                    assert await watchlist(watcher) == {"online": [user_id]}
                if user_id == ids[-1]:
                    body = json.dumps({"name": "e", "channel": f"#server-to-user-{user_id}", "data": ""}).encode()
                    assert (await call(server.port, "POST", "/apps/1001/events", body)).status_code == 200
                    await users.expect("e")
                answer = await call(server.port, "POST", f"/apps/1001/users/{user_id}/terminate_connections", b"{}")
                assert answer.status_code == 200
                assert (await users.closed()).code == 4009
                for watcher in watchers:
                    assert await watchlist(watcher) == {"offline": [user_id]}


async def test_cached_events_and_idempotency_keys_are_shared_by_all_workers(tmp_path: Path) -> None:
    with reverb(tmp_path, "--workers", "2") as server:
        for number in range(MANY):
            body = {"name": "e", "channel": "cache-a", "data": str(number), "id": "once"}
            answer = await call(server.port, "POST", "/apps/1001/events", json.dumps(body).encode())
            assert answer.status_code == 200
        async with AsyncExitStack() as stack:
            for _ in range(MANY):
                client = await stack.enter_async_context(connected(server.port))
                await client.subscribe("cache-a")

                assert (await client.receive())["data"] == "0"


async def test_signatures_made_before_a_termination_are_void_at_every_worker(tmp_path: Path) -> None:
    with reverb(tmp_path, "--workers", "2") as server:
        async with AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(connected(server.port)) for _ in range(MANY)]
            path = "/apps/1001/users/7/terminate_connections"
            assert (await call(server.port, "POST", path, b"{}")).status_code == 200
            for client in clients:
                channel_data = '{"user_id":"7"}'
                auth = sign_channel(KEY, SECRET, client.socket_id, "private-a", channel_data)
                client.send("pusher:subscribe", {"channel": "private-a", "auth": auth, "channel_data": channel_data})
                # Who was quicker than the word to its worker is ended by it.
                with suppress(Closed):
                    if (await client.receive())["event"] == "pusher_internal:subscription_succeeded":
                        assert (await client.closed()).code == 4009


async def test_members_joining_at_different_workers_see_each_other_once(tmp_path: Path) -> None:
    with reverb(tmp_path, "--workers", "2") as server:
        assert await misled([server.port], 40) == []
        assert await misled_by_leaves([server.port], 40) == []


async def test_rejoining_within_a_loop_turn_is_announced_at_no_worker(tmp_path: Path) -> None:
    with reverb(tmp_path, "--workers", "2") as server:
        async with AsyncExitStack() as stack:
            watchers = [await stack.enter_async_context(connected(server.port)) for _ in range(MANY)]
            for watcher in watchers:
                await watcher.subscribe("presence-a", {"user_id": "w"})
            member = await stack.enter_async_context(connected(server.port))
            await member.subscribe("presence-a", {"user_id": "m"})
            flap(member, "presence-a", "m", times=10)
            for _ in range(10):
                state = json.loads((await member.expect("pusher_internal:subscription_succeeded"))["data"])
                assert sorted(state["presence"]["ids"]) == ["m", "w"]
            member.send("pusher:unsubscribe", {"channel": "presence-a"})
            for watcher in watchers:
                await watcher.expect("pusher_internal:member_added")
                await watcher.expect("pusher_internal:member_removed")
