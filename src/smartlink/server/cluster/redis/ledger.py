"""Memory accounting of applications in Redis: one over its budget loses its oldest items.

A ledger is a sorted set (expiry of each item) and a hash (its bytes) per application. Entries are written in groups,
`SETTLE_S` after the items, and for that long an application may exceed its budget. While Redis is unreachable nothing
is entered; items stored then expire on their own.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

from smartlink.server.cluster.redis.commands import RedisCommands, RedisUnavailable, Script
from smartlink.server.cluster.redis.naming import Names

__all__ = ["LEDGER_SCRIPTS", "PER_THING", "RedisLedger"]

SETTLE_S = 0.25
MAX_GROUP = 500
PER_THING = 400
"""Overhead of an item in Redis in bytes, including its entry here, measured and rounded up."""

_SETTLE = Script("""
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
local used = tonumber(redis.call('HGET', KEYS[2], '') or '0')
local function drop(name)
    used = used - tonumber(redis.call('HGET', KEYS[2], name) or '0')
    redis.call('HDEL', KEYS[2], name)
end
while true do
    local over = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, 500)
    if #over == 0 then break end
    for _, name in ipairs(over) do drop(name) end
    redis.call('ZREM', KEYS[1], unpack(over))
end
for i = 3, #ARGV, 2 do
    drop(ARGV[i])
    -- a microsecond apart, so that they keep their order
    redis.call('ZADD', KEYS[1], string.format('%.6f', now + ARGV[2] + i / 2000000), ARGV[i])
    redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1])
    used = used + tonumber(ARGV[i + 1])
end
local evicted = {}
while used > tonumber(ARGV[1]) do
    local oldest = redis.call('ZPOPMIN', KEYS[1])
    if #oldest == 0 then used = 0 break end
    drop(oldest[1])
    evicted[#evicted + 1] = oldest[1]
end
redis.call('HSET', KEYS[2], '', string.format('%.0f', used))
for _, key in ipairs(KEYS) do
    if redis.call('TTL', key) < tonumber(ARGV[2]) + 1 then redis.call('EXPIRE', key, ARGV[2] + 60) end
end
return evicted
""")
LEDGER_SCRIPTS = (_SETTLE,)


class RedisLedger:
    """Accounts for one kind of item. `key` returns the Redis key of an application's item."""

    def __init__(
        self,
        commands: RedisCommands,
        names: Names,
        kind: str,
        max_bytes: int,
        key: Callable[[str, str], str],
        drop: Callable[[str, str], None] | None = None,
    ) -> None:
        """`drop(app_id, name)` removes an item; by default its key is deleted."""
        self._drop = drop or self._delete
        self._commands = commands
        self._names = names
        self._kind = kind
        self._max_bytes = max_bytes
        self._key = key
        self._due: dict[tuple[str, int], dict[str, int]] = {}
        """Bytes by name, for each application and time to live in seconds."""
        self._timer: asyncio.TimerHandle | None = None

    def enter(self, app_id: str, name: str, size: int, ttl_s: int) -> None:
        """Enter an item of `size` bytes, which replaces one of the same name."""
        self._due.setdefault((app_id, ttl_s), {})[name] = size + PER_THING
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(SETTLE_S, self._settle)

    def _settle(self) -> None:
        self._timer = None
        due, self._due = self._due, {}
        for (app_id, ttl_s), sizes in due.items():
            keys = (self._names.of_app(f"{self._kind}z", app_id), self._names.of_app(f"{self._kind}h", app_id))
            names = iter(sizes.items())
            while group := list(itertools.islice(names, MAX_GROUP)):
                pairs = itertools.chain.from_iterable(group)
                answer = self._commands.send(keys[0], "EVALSHA", _SETTLE.sha, 2, *keys, self._max_bytes, ttl_s, *pairs)
                answer.add_done_callback(partial(self._evict, app_id))

    def _evict(self, app_id: str, answer: asyncio.Future[Any]) -> None:
        if answer.cancelled() or isinstance(names := answer.result(), RedisUnavailable):
            return
        for name in names:
            self._drop(app_id, name.decode())

    def _delete(self, app_id: str, name: str) -> None:
        key = self._key(app_id, name)
        self._commands.send(key, "DEL", key)
