"""Users who join and leave at the same moment: how often does each see the other?"""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager

from kit.client import Client, connected
from kit.realtime import KEY, SECRET, call
from smartlink.protocol.signing import sign_channel

__all__ = ["flap", "in_one_piece", "misled", "misled_by_leaves", "subscription"]


@contextmanager
def in_one_piece(client: Client) -> Iterator[None]:
    """Have all that is sent meanwhile arrive together."""
    connection = client.writer.get_extra_info("socket")
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
    yield
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 0)


def flap(client: Client, channel: str, user_id: str, *, times: int = 1, **info: str) -> None:
    """Unsubscribe and subscribe again as that user, all in one piece."""
    with in_one_piece(client):
        for _ in range(times):
            client.send("pusher:unsubscribe", {"channel": channel})
            client.send("pusher:subscribe", subscription(client, channel, user_id, **info))


def subscription(client: Client, channel: str, user_id: str, **info: str) -> dict[str, str]:
    """What subscribes to a presence channel, rightly signed."""
    channel_data = json.dumps({"user_id": user_id} | ({"user_info": info} if info else {}))
    auth = sign_channel(KEY, SECRET, client.socket_id, channel, channel_data)
    return {"channel": channel, "auth": auth, "channel_data": channel_data}


async def misled(ports: Sequence[int], pairs: int) -> list[tuple[str, str, int]]:
    """Have `pairs` of users meet, each on a channel of its own, all at once.

    Returns who was not told exactly once of the other: channel, user, how often.
    """
    async with AsyncExitStack() as stack:
        clients = await _connect(stack, ports, 2 * pairs)
        users = [(f"presence-{number // 2}", "ab"[number % 2]) for number in range(2 * pairs)]
        for client, (channel, user_id) in zip(clients, users, strict=True):
            client.send("pusher:subscribe", subscription(client, channel, user_id))
        told = await _told(ports[0], clients, [channel for channel, _ in users])
    found = []
    for (channel, user_id), (state, changes) in zip(users, told, strict=True):
        other = "b" if user_id == "a" else "a"
        times = state.count(other) + changes.count(("added", other))
        if times != 1 or len(changes) > 1:
            found.append((channel, user_id, times))
    return found


async def misled_by_leaves(ports: Sequence[int], pairs: int) -> list[tuple[str, list[str], list[tuple[str, str]]]]:
    """Have one user leave a channel as another one comes. Returns newcomers whose state and changes do not agree."""
    async with AsyncExitStack() as stack:
        leavers = await _connect(stack, ports, pairs)
        channels = [f"presence-leave-{number}" for number in range(pairs)]
        for client, channel in zip(leavers, channels, strict=True):
            await client.subscribe(channel, {"user_id": "a"})
        comers = await _connect(stack, tuple(reversed(ports)), pairs)
        for leaver, comer, channel in zip(leavers, comers, channels, strict=True):
            leaver.send("pusher:unsubscribe", {"channel": channel})
            comer.send("pusher:subscribe", subscription(comer, channel, "b"))
        told = await _told(ports[0], comers, channels)
    return [
        (channel, state, changes)
        for channel, (state, changes) in zip(channels, told, strict=True)
        if (changes != [("removed", "a")] if "a" in state else changes != [])
    ]


async def _connect(stack: AsyncExitStack, ports: Sequence[int], number: int) -> list[Client]:
    cycle = itertools.cycle(ports)
    return [await stack.enter_async_context(connected(next(cycle))) for _ in range(number)]


async def _told(
    port: int, clients: Sequence[Client], channels: Sequence[str]
) -> list[tuple[list[str], list[tuple[str, str]]]]:
    """Of each client the ids in its state and the changes told afterwards, up to an event that comes after all."""
    states = await asyncio.gather(*(_state(client) for client in clients))
    names = list(dict.fromkeys(channels))
    for start in range(0, len(names), 10):
        body = json.dumps({"name": "end", "channels": names[start : start + 10], "data": ""}).encode()
        assert (await call(port, "POST", "/apps/1001/events", body)).status_code == 200
    changes = await asyncio.gather(*(_changes(client) for client in clients))
    return list(zip(states, changes, strict=True))


async def _state(client: Client) -> list[str]:
    state = json.loads((await client.expect("pusher_internal:subscription_succeeded"))["data"])["presence"]
    assert state["count"] == len(state["ids"])
    ids: list[str] = state["ids"]
    return ids


async def _changes(client: Client) -> list[tuple[str, str]]:
    found = []
    while (message := await client.receive())["event"] != "end":
        what = message["event"].removeprefix("pusher_internal:member_")
        found.append((what, json.loads(message["data"])["user_id"]))
    return found
