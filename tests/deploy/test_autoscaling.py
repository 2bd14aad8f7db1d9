"""Autoscaling by connections, as Kubernetes' HPA does it: nodes are added and drained, and clients miss nothing."""

from __future__ import annotations

import asyncio
import math
import re
import signal
from contextlib import AsyncExitStack

import httpx2
import pytest

from kit.deployment import Deployment
from kit.proxies import HAProxy
from kit.readers import Reader, as_ana
from kit.talking import Writer
from kit.waiting import LIMIT_S, eventually

pytestmark = [pytest.mark.deploy, pytest.mark.timeout(420)]
PER_NODE = 15
"""The chart's `connectionsPerPod`."""
ARRIVING = 20


def wanted_nodes(nodes: int, connections_per_node: float) -> int:
    """The HPA's formula, with its tolerance of a tenth."""
    ratio = connections_per_node / PER_NODE
    return nodes if abs(ratio - 1) <= 0.1 else max(1, math.ceil(nodes * ratio))


async def connections(deployed: Deployment, number: int) -> int:
    """What the node's metrics say, over all apps."""
    async with httpx2.AsyncClient(timeout=LIMIT_S) as client:
        text = (await client.get(f"http://127.0.0.1:{deployed.metrics_ports[number]}/metrics")).text
    return sum(int(float(value)) for value in re.findall(r"^smartlink_connections\{[^}]*\} (\S+)", text, re.MULTILINE))


async def test_clients_miss_nothing_while_nodes_are_added_and_drained(deployed: Deployment) -> None:
    proxy = deployed.put(HAProxy)
    deployed.nodes[1].end()
    await eventually(lambda: "Server realtime/node2 is DOWN" in proxy.said, what="the proxy sees one node")
    async with AsyncExitStack() as first, AsyncExitStack() as second, Writer(deployed) as writer:
        api = await first.enter_async_context(as_ana(deployed))

        # Connections rise.
        staying = [await first.enter_async_context(Reader(deployed, api)) for _ in range(5)]
        leaving = [await second.enter_async_context(Reader(deployed, api)) for _ in range(ARRIVING - 5)]
        assert await connections(deployed, 0) == ARRIVING
        assert wanted_nodes(1, ARRIVING) == 2

        # A node is added, and takes what is new.
        before = proxy.said.count("Server realtime/node2 is UP")
        deployed.nodes[1].start()
        await eventually(
            lambda: proxy.said.count("Server realtime/node2 is UP") > before, what="the proxy sees the new node"
        )
        staying += [await first.enter_async_context(Reader(deployed, api)) for _ in range(5)]
        leaving += [await second.enter_async_context(Reader(deployed, api)) for _ in range(ARRIVING - 5)]
        spread = [await connections(deployed, number) for number in (0, 1)]
        assert sum(spread) == 2 * ARRIVING
        assert spread[1] >= ARRIVING / 2
        assert wanted_nodes(2, sum(spread) / 2) == 3, "the HPA would add another"

        # Most leave, and the older node is drained while messages are written.
        await writer.said_more(3)
        await second.aclose()
        left = [await connections(deployed, number) for number in (0, 1)]
        assert wanted_nodes(2, sum(left) / 2) == 1
        deployed.nodes[0].signal(signal.SIGTERM)
        await writer.said_more(3)
        assert await asyncio.to_thread(deployed.nodes[0].wait) == 0
        await writer.said_more(3)

        for reader in staying:
            await eventually(lambda reader=reader: reader.has(writer.written[-1]), what="the last message arrives")
        assert await connections(deployed, 1) == len(staying)

    for reader in (*staying, *leaving):
        reader.check(writer.written)
    assert {code for reader in staying[:5] for code in reader.closes} == {4200}
    assert all(not reader.closes for reader in staying[5:] if spread[0] == ARRIVING)
