"""The idempotency store of all nodes, in Redis: a key per call.

Its value is `p` and the node's token while the call is in progress, then `a` and the answer. If the node dies in
between, repeats are blocked for PENDING_S only. Updates lost while Redis is unreachable are sent when it returns.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict
from typing import Any

from smartlink.server.cluster.brokers.base import BrokerUnavailable
from smartlink.server.cluster.idempotency.base import KEPT_S, MAX_APP_BYTES, CallUnderWay
from smartlink.server.cluster.redis.commands import RedisCommands, RedisUnavailable, Script
from smartlink.server.cluster.redis.ledger import LEDGER_SCRIPTS, RedisLedger
from smartlink.server.cluster.redis.naming import Names

__all__ = ["IDEMPOTENCY_SCRIPTS", "RedisIdempotency"]

PENDING_S = 20
MAX_DEFERRED = 10_000

_CLAIM = Script("""
local found = redis.call('GET', KEYS[1])
if found then return found end
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
return false
""")
_COMPLETE = Script("""
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('SET', KEYS[1], 'a' .. ARGV[2], 'EX', ARGV[3]) end
return 1
""")
_RELEASE = Script("""
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
return 1
""")
IDEMPOTENCY_SCRIPTS = (_CLAIM, _COMPLETE, _RELEASE, *LEDGER_SCRIPTS)


class RedisIdempotency:
    """An `IdempotencyStore` over Redis. Opened and closed with the broker."""

    def __init__(self, commands: RedisCommands, names: Names, max_app_bytes: int = MAX_APP_BYTES) -> None:
        self._commands = commands
        self._names = names
        self._ledger = RedisLedger(commands, names, "w", max_app_bytes, names.receipt)
        self._pending = b"p" + secrets.token_hex(8).encode()
        self._deferred: OrderedDict[str, tuple[Script, tuple[Any, ...]]] = OrderedDict()
        """Updates to send, by key, when Redis returns."""
        commands.on_return.append(self._send_deferred)

    async def claim(self, app_id: str, key: str) -> bytes | None:
        name = self._names.receipt(app_id, key)
        try:
            found: bytes | None = await self._commands.run(_CLAIM, [name], self._pending, PENDING_S)
        except RedisUnavailable as error:
            if error.was_sent:
                self._defer(name, _RELEASE, self._pending)
            raise BrokerUnavailable(str(error)) from None
        if found is None:
            return None
        if found[:1] == b"p":
            raise CallUnderWay
        return found[1:]

    async def complete(self, app_id: str, key: str, answer: bytes) -> None:
        await self._update(self._names.receipt(app_id, key), _COMPLETE, self._pending, answer, KEPT_S)
        self._ledger.enter(app_id, key, 3 * len(key) + len(answer), KEPT_S)

    async def release(self, app_id: str, key: str) -> None:
        await self._update(self._names.receipt(app_id, key), _RELEASE, self._pending)

    async def _update(self, name: str, script: Script, *arguments: Any) -> None:
        try:
            await self._commands.run(script, [name], *arguments)
        except RedisUnavailable:
            self._defer(name, script, *arguments)

    def _defer(self, name: str, script: Script, *arguments: Any) -> None:
        self._deferred[name] = (script, arguments)
        if len(self._deferred) > MAX_DEFERRED:
            self._deferred.popitem(last=False)

    def _send_deferred(self) -> None:
        deferred, self._deferred = self._deferred, OrderedDict()
        for name, (script, arguments) in deferred.items():
            self._commands.send(name, "EVALSHA", script.sha, 1, name, *arguments)
