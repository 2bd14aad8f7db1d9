"""The sessions of all nodes, in Redis: a hash per session with its owner `o` and its content `c`, a key per mark."""

from __future__ import annotations

import asyncio
import math
import secrets
from collections.abc import Callable, Sequence
from typing import Any

from smartlink.server.cluster.brokers.base import BrokerUnavailable
from smartlink.server.cluster.redis.commands import RedisCommands, RedisUnavailable, Script
from smartlink.server.cluster.redis.ledger import LEDGER_SCRIPTS, RedisLedger
from smartlink.server.cluster.redis.naming import Names
from smartlink.server.cluster.sessions.base import MAX_APP_BYTES

__all__ = ["SESSION_SCRIPTS", "RedisSessions"]

TAKEN_S = 60
"""How long a new owner is remembered before it saves anything."""

_TAKE = Script("""
local content = redis.call('HGET', KEYS[1], 'c')
redis.call('HSET', KEYS[1], 'o', ARGV[1])
redis.call('EXPIRE', KEYS[1], ARGV[2])
return content
""")
_SAVE = Script("""
local owner = redis.call('HGET', KEYS[1], 'o')
if owner and owner ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'o', ARGV[1], 'c', ARGV[2])
redis.call('EXPIRE', KEYS[1], ARGV[3])
return 1
""")
SESSION_SCRIPTS = (_TAKE, _SAVE, *LEDGER_SCRIPTS)


class RedisSessions:
    """A `SessionStore` over Redis. Opened and closed with the broker."""

    def __init__(self, commands: RedisCommands, names: Names, max_app_bytes: int = MAX_APP_BYTES) -> None:
        self._commands = commands
        self._names = names
        self._ledger = RedisLedger(commands, names, "y", max_app_bytes, names.session)

    def ask_for_open(self, give_up: Callable[[str, str], bytes | None]) -> bool:
        return False

    async def take(self, app_id: str, name: str, owner: str) -> bytes | None:
        content: bytes | None = await self._run(_TAKE, app_id, name, owner, TAKEN_S)
        return content

    async def save(self, app_id: str, name: str, owner: str, content: bytes, ttl_s: float) -> bool:
        is_saved = bool(await self._run(_SAVE, app_id, name, owner, content, max(1, math.ceil(ttl_s))))
        if is_saved:
            self._ledger.enter(app_id, name, len(name) + len(content), max(1, math.ceil(ttl_s)))
        return is_saved

    async def revoke(self, app_id: str, subject: str, ttl_s: float) -> None:
        key = self._names.mark(app_id, subject)
        try:
            await self._commands.ask(key, "SET", key, 1 + secrets.randbits(52), "EX", max(1, math.ceil(ttl_s)))
        except RedisUnavailable as error:
            raise BrokerUnavailable(str(error)) from None

    async def marks(self, app_id: str, subjects: Sequence[str]) -> Sequence[int]:
        keys = [self._names.mark(app_id, subject) for subject in subjects]
        replies = await asyncio.gather(*(self._commands.send(key, "GET", key) for key in keys))
        for reply in replies:
            if isinstance(reply, RedisUnavailable):
                raise BrokerUnavailable(str(reply))
        return [int(reply or 0) for reply in replies]

    async def _run(self, script: Script, app_id: str, name: str, *arguments: Any) -> Any:
        try:
            return await self._commands.run(script, (self._names.session(app_id, name),), *arguments)
        except RedisUnavailable as error:
            raise BrokerUnavailable(str(error)) from None
