"""Memory accounting of the streams of channels in Redis: an application over its budget loses its own oldest.

Each publication's script returns the memory of its stream. New streams are accounted for in groups of the same age, and
by themselves once they grow: most get only one event, and entering each would cost as much as publishing it. The time
of the last loss is noted per application, so that a node which must catch up learns that something may be missing.
Streams without events have a budget of their own.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field

from smartlink.server.cluster.redis.commands import RedisCommands, Script
from smartlink.server.cluster.redis.ledger import LEDGER_SCRIPTS, PER_THING, RedisLedger
from smartlink.server.cluster.redis.naming import Names

__all__ = ["KEPT_SCRIPTS", "MAX_APP_BYTES", "USED", "KeptBytes"]

MAX_APP_BYTES = 33_554_432
"""Memory for the streams of one application, including overhead."""
MAX_REMEMBERED = 50_000
"""Streams whose accounted size is remembered here."""
SPARE = 1.25
"""A stream is accounted for with some spare, so that it is not entered again with every event."""
PER_GROUP = 50
GROUP_S = 0.25
"""How long a group of new streams is open."""
LOSS_NOTED_S = 2.0
"""For how long a loss is noted in advance, where one follows another."""
_BETWEEN = "\n"
"""Separates the channels of a group; no name contains it."""

USED = """
local used = redis.pcall('MEMORY', 'USAGE', KEYS[1])
if type(used) ~= 'number' then used = 0 end
"""
"""Lua: the memory of the stream, 0 if Redis does not tell."""
_NOTE = Script("""
local now = redis.call('TIME')
local ms = now[1] * 1000 + math.floor(now[2] / 1000) + ARGV[2]
return redis.call('SET', KEYS[1], string.format('%.0f', ms), 'EX', ARGV[1])
""")
_DROP_EMPTY = Script("""
local entries = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 2)
if #entries == 1 and entries[1][2][2] == '' then return redis.call('DEL', KEYS[1]) end
return 0
""")
KEPT_SCRIPTS = (_NOTE, _DROP_EMPTY, *LEDGER_SCRIPTS)


@dataclass(slots=True)
class _Group:
    channels: set[str] = field(default_factory=set)
    size: int = 0


class KeptBytes:
    """Accounts for the streams that this node writes, and drops what is too much, whichever node wrote it."""

    def __init__(self, commands: RedisCommands, names: Names, max_app_bytes: int, ttl_s: int) -> None:
        """`ttl_s` is how long streams are kept that no policy keeps longer."""
        self._ttl_s = ttl_s
        self._max_group_bytes = max_app_bytes // 16
        self._commands = commands
        self._names = names
        self._ledger = RedisLedger(commands, names, "x", max_app_bytes, names.log, self._drop)
        self._empty = RedisLedger(commands, names, "j", max_app_bytes, names.log, self._drop_empty)
        self._lost_until: dict[str, float] = {}
        """By app: until when a loss is noted."""
        self._entered: OrderedDict[tuple[str, str], tuple[float, float]] = OrderedDict()
        """By app and channel: bytes, and until when they stand."""
        self._new: dict[tuple[str, int], _Group] = {}
        """By app and time to live: new streams."""
        self._timer: asyncio.TimerHandle | None = None

    def note(self, app_id: str, channel: str, used: int, ttl_s: int, *, is_new: bool = False) -> None:
        """Note the memory of a channel's stream, which expires in `ttl_s`. `is_new`: it holds only one entry."""
        if not used:
            return
        if is_new:
            self._note_new(app_id, channel, used, ttl_s)
            return
        key, now = (app_id, channel), time.monotonic()
        entered, until = self._entered.get(key, (0.0, 0.0))
        if until > now and entered / 2 <= used <= entered:
            return
        if (group := self._new.get((app_id, ttl_s))) is not None:
            group.channels.discard(channel)
        size = int(used * SPARE)
        self._entered[key] = (size, now + ttl_s / 2)
        self._entered.move_to_end(key)
        if len(self._entered) > MAX_REMEMBERED:
            self._entered.popitem(last=False)
        self._ledger.enter(app_id, channel, size, ttl_s)

    def note_empty(self, app_id: str, channel: str, used: int, ttl_s: int) -> None:
        """Note a stream without events, which clients begin by subscribing: no client can drive out events by it."""
        if used:
            self._empty.enter(app_id, channel, used, ttl_s)

    def note_loss(self, app_id: str) -> None:
        """Note that the app has lost events, or may within a second."""
        now = time.monotonic()
        if self._lost_until.get(app_id, 0.0) <= now:
            self._lost_until[app_id] = now + LOSS_NOTED_S / 2
            self._note_lost(app_id, LOSS_NOTED_S)

    def stop(self) -> None:
        """Cancel the timer; what is not entered yet expires unaccounted."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _note_new(self, app_id: str, channel: str, used: int, ttl_s: int) -> None:
        self._entered.pop((app_id, channel), None)
        group = self._new.setdefault((app_id, ttl_s), _Group())
        group.channels.add(channel)
        group.size += used + PER_THING
        if len(group.channels) >= PER_GROUP or group.size > self._max_group_bytes:
            self._enter(app_id, ttl_s)
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(GROUP_S, self._enter_all)

    def _enter_all(self) -> None:
        self._timer = None
        for app_id, ttl_s in tuple(self._new):
            self._enter(app_id, ttl_s)

    def _enter(self, app_id: str, ttl_s: int) -> None:
        group = self._new.pop((app_id, ttl_s))
        if group.channels:
            self._ledger.enter(app_id, _BETWEEN.join(group.channels), group.size - PER_THING, ttl_s)

    def _drop(self, app_id: str, name: str) -> None:
        """Drop a stream, or those of a group of new ones that have not grown since, as far as known here."""
        channels = name.split(_BETWEEN)
        for channel in channels:
            if len(channels) == 1 or (app_id, channel) not in self._entered:
                self._entered.pop((app_id, channel), None)
                key = self._names.log(app_id, channel)
                self._commands.send(key, "DEL", key)
        self._note_lost(app_id, 0.0)

    def _drop_empty(self, app_id: str, channel: str) -> None:
        key = self._names.log(app_id, channel)
        self._commands.send(key, "EVALSHA", _DROP_EMPTY.sha, 1, key)

    def _note_lost(self, app_id: str, ahead_s: float) -> None:
        key = self._names.of_app("xl", app_id)
        self._commands.send(key, "EVALSHA", _NOTE.sha, 1, key, self._ttl_s, int(ahead_s * 1_000))

    async def lost_at(self, app_ids: Iterable[str]) -> dict[str, int]:
        """When each of the apps lost something last, in Redis time in ms; not those that lost nothing lately.

        Raises RedisUnavailable.
        """
        found = {}
        for app_id in app_ids:
            key = self._names.of_app("xl", app_id)
            if (told := await self._commands.ask(key, "GET", key)) is not None:
                found[app_id] = int(told)
        return found
