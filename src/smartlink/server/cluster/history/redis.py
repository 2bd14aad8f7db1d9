"""The history of all nodes, in Redis: per channel a counter and a list of entries, in one hash slot.

An entry is `<position> <expiry in Redis time, ms> <frame>`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

from smartlink.server.cluster.brokers.base import BrokerUnavailable
from smartlink.server.cluster.history.base import MAX_APP_BYTES, POSITION_KEPT_S, HistoryEntry
from smartlink.server.cluster.redis.commands import RedisCommands, RedisUnavailable, Script
from smartlink.server.cluster.redis.ledger import LEDGER_SCRIPTS, RedisLedger
from smartlink.server.cluster.redis.naming import Names

__all__ = ["HISTORY_SCRIPTS", "RedisHistory"]

_NOW = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
"""
_APPEND = Script(
    _NOW
    + """
local position = redis.call('INCR', KEYS[1])
local ttl_ms = tonumber(ARGV[2])
redis.call('RPUSH', KEYS[2], position .. ' ' .. string.format('%.0f', now + ttl_ms) .. ' ' .. ARGV[1])
redis.call('LTRIM', KEYS[2], -tonumber(ARGV[3]), -1)
local left_ms = redis.call('PTTL', KEYS[2])
if left_ms < ttl_ms then redis.call('PEXPIRE', KEYS[2], math.max(ttl_ms, 1)) end
redis.call('EXPIRE', KEYS[1], math.max(tonumber(ARGV[4]), math.ceil(ttl_ms / 1000) + 1))
return position
"""
)
_READ = Script(
    _NOW
    + """
return {redis.call('GET', KEYS[1]) or '0', string.format('%.0f', now), redis.call('LRANGE', KEYS[2], ARGV[1], -1)}
"""
)
HISTORY_SCRIPTS = (_APPEND, _READ, *LEDGER_SCRIPTS)


class RedisHistory:
    """A `History` over Redis. Keeps the last `keep` events of each channel. Opened and closed with the broker."""

    def __init__(
        self, commands: RedisCommands, names: Names, keep: int = 1, max_app_bytes: int = MAX_APP_BYTES
    ) -> None:
        self._commands = commands
        self._names = names
        self._keep = keep
        self._events = RedisLedger(commands, names, "u", max_app_bytes, partial(names.of_channel, "l"))
        self._positions = RedisLedger(commands, names, "v", max_app_bytes // 4, partial(names.of_channel, "n"))

    async def append(self, app_id: str, channel: str, frame: bytes, ttl_s: float) -> int:
        ttl_ms = max(1, round(ttl_s * 1_000))
        position: int = await self._run(_APPEND, app_id, channel, frame, ttl_ms, self._keep, POSITION_KEPT_S)
        size = 2 * len(channel) + self._keep * len(frame)
        self._events.enter(app_id, channel, size, math.ceil(ttl_s))
        self._positions.enter(app_id, channel, 2 * len(channel), max(POSITION_KEPT_S, math.ceil(ttl_s) + 1))
        return position

    async def latest(self, app_id: str, channel: str) -> HistoryEntry | None:
        _, entries = await self._read(app_id, channel, -1)
        return entries[-1] if entries else None

    async def since(self, app_id: str, channel: str, position: int) -> Sequence[HistoryEntry] | None:
        last, entries = await self._read(app_id, channel, 0)
        if last == 0:
            return () if position == 0 else None
        after = [entry for entry in entries if entry.position > position]
        return after if position + len(after) == last else None

    async def _read(self, app_id: str, channel: str, start: int) -> tuple[int, list[HistoryEntry]]:
        """The channel's position, and the unexpired entries from `start`."""
        last, now, kept = await self._run(_READ, app_id, channel, start)
        entries = []
        for entry in kept:
            position, until, frame = entry.split(b" ", 2)
            left_ms = int(until) - int(now)
            if left_ms > 0:
                entries.append(HistoryEntry(int(position), frame, left_ms / 1_000))
        return int(last), entries

    async def _run(self, script: Script, app_id: str, channel: str, *arguments: Any) -> Any:
        keys = (self._names.of_channel("n", app_id, channel), self._names.of_channel("l", app_id, channel))
        try:
            return await self._commands.run(script, keys, *arguments)
        except RedisUnavailable as error:
            raise BrokerUnavailable(str(error)) from None
