"""Subscription counts, for applications that enable them."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack

from kit.client import Client, connected
from kit.realtime import an_app, realtime_server
from kit.waiting import LIMIT_S, eventually
from smartlink.protocol import encoding
from smartlink.server.cluster.brokers.base import Publication
from smartlink.server.core.counts import PACED_ABOVE, CountPace
from smartlink.server.run.lifecycle import RealtimeServer


async def count(client: Client) -> int:
    message = await client.expect("pusher_internal:subscription_count")
    number: int = json.loads(message["data"])["subscription_count"]
    return number


async def test_each_join_and_leave_sends_the_count_to_all() -> None:
    async with (
        realtime_server(an_app(sends_subscription_counts=True)) as server,
        connected(server.port) as one,
        connected(server.port) as two,
    ):
        await one.subscribe("chat")
        assert await count(one) == 1
        await two.subscribe("chat")
        assert (await count(one), await count(two)) == (2, 2)
        two.send("pusher:unsubscribe", {"channel": "chat"})
        assert await count(one) == 1
        assert await two.is_quiet()


async def test_counts_are_sent_neither_on_presence_channels_nor_by_default(server: RealtimeServer) -> None:
    async with connected(server.port) as client:
        await client.subscribe("chat")
        assert await client.is_quiet()
    async with (
        realtime_server(an_app(sends_subscription_counts=True)) as wanting,
        connected(wanting.port) as client,
    ):
        await client.subscribe("presence-a", {"user_id": "1"})
        assert await client.is_quiet()
        await client.sign_in("1")
        await client.subscribe("#server-to-user-1")
        assert await client.is_quiet()


async def test_large_channels_get_counts_at_a_slower_pace_ending_with_the_last() -> None:
    told: list[int | None] = []
    pace = CountPace(lambda app_id, channel, count, heard: told.append(count), pace_s=0.05)
    for number in range(1, PACED_ABOVE + 20):
        pace.changed("1", "chat", number)

    assert told == list(range(1, PACED_ABOVE + 2))
    await eventually(lambda: told[-1] is None)
    assert told[:-1] == list(range(1, PACED_ABOVE + 2))
    await eventually(lambda: not pace._resting)
    assert told.count(None) == 1
    pace.changed("1", "chat", 150)
    assert told[-1] == 150
    pace.changed("1", "chat", 151)
    pace.changed("1", "chat", 100)
    assert told[-1] == 100
    pace.stop()


async def test_a_delayed_count_is_current_when_sent() -> None:
    async with (
        realtime_server(an_app(sends_subscription_counts=True)) as server,
        AsyncExitStack() as clients,
        connected(server.port) as first,
    ):
        server.node._announcer.counts._pace_s = 0.2
        await first.subscribe("chat")
        others = [await clients.enter_async_context(connected(server.port)) for _ in range(PACED_ABOVE + 5)]
        for client in others:
            client.send("pusher:subscribe", {"channel": "chat"})
        async with asyncio.timeout(LIMIT_S):
            while await count(first) != PACED_ABOVE + 6:
                pass


async def test_a_count_received_out_of_order_is_reconciled() -> None:
    async with (
        realtime_server(an_app(sends_subscription_counts=True)) as server,
        connected(server.port) as one,
        connected(server.port) as two,
    ):
        await one.subscribe("chat")
        await two.subscribe("chat")
        assert (await count(one), await count(one), await count(two)) == (1, 2, 2)

        # As another node told it before the second came.
        server.node.deliver(Publication("1001", "chat", encoding.subscription_count("chat", 1)))

        assert (await count(one), await count(one)) == (1, 2)
        assert (await count(two), await count(two)) == (1, 2)
        await eventually(lambda: not server.node._announcer.counts._rechecks)
        assert await one.is_quiet()


async def test_a_node_without_subscribers_reconciles_its_own_count() -> None:
    told: list[tuple[int | None, int | None]] = []
    pace = CountPace(lambda app_id, channel, count, heard: told.append((count, heard)), recheck_s=0.01)
    pace.changed("1", "chat", 2)
    await eventually(lambda: not pace._rechecks)

    assert told == [(2, None), (None, 2)]


async def test_on_large_channels_the_next_count_reconciles_an_outdated_one() -> None:
    told: list[int | None] = []
    pace = CountPace(lambda app_id, channel, count, heard: told.append(count), pace_s=0.1, recheck_s=0.01)
    for heard in ([201], [200, 201], [201, 200]):
        told.clear()
        pace.changed("1", "chat", 201)
        for number in heard:
            pace.note("1", "chat", number)
        await eventually(lambda: not pace._resting)

        assert told == ([201] if heard == [201] else [201, None])
    pace.stop()


async def test_of_several_nodes_only_one_sends_a_delayed_count() -> None:
    told: list[str] = []
    nodes: list[CountPace] = []

    def tell(name: str) -> None:
        told.append(name)
        for node in nodes:
            node.note("1", "chat", 200)

    nodes += [CountPace(lambda *_, n=name: tell(n), pace_s=0.05) for name in "abcd"]  # type: ignore[misc]
    for node in nodes:
        node.changed("1", "chat", 200)

    assert told == ["a"]
    await eventually(lambda: not any(node._changed or node._resting for node in nodes))
    assert sorted(told) == ["a", "b", "c", "d"]
    for node in nodes:
        node.stop()
