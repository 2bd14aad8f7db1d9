"""Clears up after dead nodes in Redis: removes their entries, those with a grace when it is over."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any

import structlog

from smartlink.server.cluster.redis.commands import RedisCommands
from smartlink.server.cluster.redis.naming import Names

__all__ = ["AT_ONCE", "DeadNodes", "channels_of", "each"]

AT_ONCE = 250
"""Channels processed at a time."""

_Key = tuple[str, str]
log = structlog.get_logger(__name__)


class DeadNodes:
    """The dead nodes that this node clears up after.

    `remove(key, node_id, waited_s)` removes the entries of a node that died `waited_s` ago from a channel, and returns
    in how many seconds those that stay are to be removed, 0 if none do.
    """

    def __init__(
        self,
        commands: RedisCommands,
        names: Names,
        remove: Callable[[_Key, str, float], Awaitable[int]],
        lease_s: float,
    ) -> None:
        self._commands = commands
        self._names = names
        self._remove = remove
        self._lease_s = lease_s
        self._new: set[str] = set()
        self._died_at: dict[str, float] = {}
        self._remaining: dict[str, dict[_Key, float]] = {}
        """By node: channels on which members stay, and until when."""

    def __len__(self) -> int:
        return len(self._new | self._remaining.keys())

    def add(self, node_ids: Iterable[str]) -> None:
        """Note nodes whose lease has expired. Those that are known already are looked through again."""
        self._new.update(node_ids)

    async def clear_up(self) -> None:
        """Remove what is due. Raises RedisUnavailable: the rest is done later, by this node or another."""
        for node_id in tuple(self._new):
            self._new.discard(node_id)
            self._died_at.setdefault(node_id, time.monotonic() - self._lease_s)
            async for keys in channels_of(self._commands, self._names, node_id):
                await each(self._remove_from(key, node_id) for key in keys)
            await self._forget(node_id)
        now = time.monotonic()
        for node_id, remaining in tuple(self._remaining.items()):
            due = [key for key, at in remaining.items() if at <= now]
            for start in range(0, len(due), AT_ONCE):
                await each(self._remove_from(key, node_id) for key in due[start : start + AT_ONCE])
            await self._forget(node_id)

    async def _remove_from(self, key: _Key, node_id: str) -> None:
        now = time.monotonic()
        remaining = self._remaining.setdefault(node_id, {})
        if wait_s := await self._remove(key, node_id, now - self._died_at[node_id]):
            remaining[key] = now + wait_s
        else:
            remaining.pop(key, None)

    async def _forget(self, node_id: str) -> None:
        """Forget a node of which nothing is left."""
        if self._remaining.get(node_id):
            return
        index, claimed = self._names.channels_of_node(node_id), self._names.of_nodes("claimed")
        await self._commands.ask(index, "DEL", index)
        await self._commands.ask(claimed, "ZREM", claimed, node_id)
        self._remaining.pop(node_id, None)
        del self._died_at[node_id]
        log.info("removed the entries of a dead node")


async def channels_of(commands: RedisCommands, names: Names, node_id: str) -> AsyncIterator[list[_Key]]:
    """The channels on which a node has entries, in batches."""
    index, cursor = names.channels_of_node(node_id), b"0"
    while True:
        cursor, entries = await commands.ask(index, "SSCAN", index, cursor, "COUNT", AT_ONCE)
        parsed = (Names.parse_entry(entry.decode(errors="replace")) for entry in entries)
        yield [key for key in parsed if key is not None]
        if cursor == b"0":
            return


async def each(work: Iterable[Awaitable[Any]]) -> None:
    """Run all to completion; then raise RedisUnavailable if any failed."""
    outcomes = await asyncio.gather(*work, return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
