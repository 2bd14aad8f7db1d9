"""How many connections each app has on the other nodes, and whether one more fits, through Redis."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

import msgspec

from smartlink.server.cluster.presence.lua import PLACE
from smartlink.server.cluster.redis.commands import RedisCommands, RedisUnavailable
from smartlink.server.cluster.redis.naming import Names

__all__ = ["ConnectionCounts"]

NEAR, NEAR_PART = 256, 0.1
"""How close to its limit an app must be, in connections and as a fraction, for Redis to be asked before each one;
further away, the counts of others may be a second old.
"""

_ANY = 1 << 53
"""No limit."""
_reports = msgspec.json.Decoder(dict[str, int])


class ConnectionCounts:
    """Counts the connections of each app in the cluster. `node_id` is None while Redis is unreachable."""

    def __init__(self, commands: RedisCommands, names: Names, node_id: Callable[[], str | None]) -> None:
        self._commands = commands
        self._names = names
        self._node_id = node_id
        self._connections: dict[str, int] = {}
        self._asking: dict[str, int] = {}
        """Connections that a place is being requested for."""
        self._unpublished: set[str] = set()
        """Apps with counts to publish."""
        self._others: dict[str, int] = {}
        self.nodes = 1
        """Live nodes, as last reported."""

    def count(self, app_id: str, connections: int) -> None:
        """Set this node's number of connections. Published with the other counts of this turn of the loop."""
        if connections:
            self._connections[app_id] = connections
        else:
            self._connections.pop(app_id, None)
        self._publish_later(app_id)

    def elsewhere(self, app_id: str) -> int:
        """The number of connections on other nodes, as last reported."""
        return self._others.get(app_id, 0)

    async def ask_elsewhere(self, app_id: str) -> int:
        """The same, queried now."""
        if (node_id := self._node_id()) is not None:
            with contextlib.suppress(RedisUnavailable):
                await self._place(node_id, app_id, _ANY)
        return self.elsewhere(app_id)

    async def take(self, app_id: str, here: int, most: int) -> bool:
        """Whether one more fits beside the `here` of this node, where all nodes together may have `most`."""
        known = here + self._asking.get(app_id, 0) + self.elsewhere(app_id)
        node_id = self._node_id()
        if node_id is None:
            return known < most
        if known < most - max(NEAR, int(most * NEAR_PART)):
            return True
        self._asking[app_id] = self._asking.get(app_id, 0) + 1
        try:
            return await self._place(node_id, app_id, most)
        except RedisUnavailable:
            return known < most
        finally:
            self._asking[app_id] -= 1
            if not self._asking[app_id]:
                del self._asking[app_id]

    def report(self) -> bytes:
        """This node's connections, for `on_reports` of the others."""
        return msgspec.json.encode(self._connections)

    def publish_all(self) -> None:
        """Publish all counts, as after the other nodes were unreachable."""
        for app_id in self._connections:
            self._publish_later(app_id)

    def on_reports(self, reports: list[bytes], own_id: str) -> None:
        """Store the nodes' reports, each preceded by its node id."""
        elsewhere: dict[str, int] = {}
        for node_id, report in zip(reports[::2], reports[1::2], strict=True):
            if node_id.decode(errors="replace") == own_id:
                continue
            try:
                connections = _reports.decode(report)
            except (msgspec.MsgspecError, ValueError):
                continue
            for app_id, number in connections.items():
                elsewhere[app_id] = elsewhere.get(app_id, 0) + max(0, number)
        self._others = elsewhere
        self.nodes = max(1, len(reports) // 2)

    async def _place(self, node_id: str, app_id: str, most: int) -> bool:
        count = self._connections.get(app_id, 0) + self._asking.get(app_id, 0)
        keys = [self._names.of_nodes("alive"), self._names.of_nodes(f"places:{app_id}")]
        fits, elsewhere = await self._commands.run(PLACE, keys, node_id, count, most)
        self._others[app_id] = elsewhere
        return bool(fits)

    def _publish_later(self, app_id: str) -> None:
        """Publish a count with the others of this turn of the loop."""
        if not self._unpublished:
            asyncio.get_running_loop().call_soon(self._publish_counts)
        self._unpublished.add(app_id)

    def _publish_counts(self) -> None:
        apps, self._unpublished = self._unpublished, set()
        node_id = self._node_id()
        if node_id is None:
            return  # published when Redis returns
        for app_id in apps:
            count = self._connections.get(app_id, 0) + self._asking.get(app_id, 0)
            places = self._names.of_nodes(f"places:{app_id}")
            self._commands.send(places, "HSET", places, node_id, count)
