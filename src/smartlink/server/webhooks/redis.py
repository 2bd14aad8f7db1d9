"""The webhook queue in Redis, shared by several nodes. As durable as Redis is configured to be (`appendonly yes`).

Every call is one script, hence atomic. Times are from Redis's clock, so that nodes need not agree. All keys share one
hash tag, as a Cluster requires of the keys of one script. A script whose reply was lost may have run; the caller
decides whether to repeat it.

  subjects   hash    subject → "{announced}{version}"     due      zset  channels by due time
                                                          due:users  zset  users likewise
  ready      zset    address by when it may be taken      counter  number of the latest version or failed batch
  wait:A     list    waiting entries of address A         state:A  hash  lease, attempts, failing
  failed     hash    id → batch                           failed:A list  ids of the address
  seen:S     string  expires when the subject may be reported again
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from smartlink.server.cluster.redis.commands import RedisCommands, RedisUnavailable, Script
from smartlink.server.cluster.redis.connect import RedisRefused
from smartlink.server.cluster.redis.naming import Names
from smartlink.server.webhooks.queue import (
    MAX_FAILED,
    MAX_WAITING,
    Address,
    Batch,
    Check,
    FailedBatch,
    QueuedEvent,
    QueueUnavailable,
    Subject,
    WebhookReport,
)

__all__ = ["WEBHOOK_SCRIPTS", "RedisQueue"]

_LIBRARY = """
local prefix = KEYS[1]
local t = redis.call('TIME')
local now = t[1] + t[2] / 1000000
local function key(name) return prefix .. name end
local function text(number) return string.format('%.6f', number) end
local function count() return string.format('%.0f', redis.call('INCR', key('counter'))) end
local function push(address, entries, anew)
  for _, entry in ipairs(entries) do redis.call('RPUSH', key('wait:' .. address), entry) end
  if redis.call('ZSCORE', key('ready'), address) == false or anew then
    redis.call('ZADD', key('ready'), text(now), address)
  end
end
local function append(report)
  local dropped = 0
  for _, address in ipairs(report.addresses) do
    if redis.call('LLEN', key('wait:' .. address)) >= tonumber(ARGV[1]) then
      dropped = dropped + 1
    else
      push(address, {cjson.encode({text(report.at), text(now), report.event})})
    end
  end
  return dropped
end
local function due_of(subject)
  return key(string.sub(subject, -4) == ',""]' and 'due' or 'due:users')
end
local function is_leased(address, lease)
  return redis.call('HGET', key('state:' .. address), 'lease') == lease
end
local function free(address)
  redis.call('DEL', key('state:' .. address))
  if redis.call('EXISTS', key('wait:' .. address)) == 1 then
    redis.call('ZADD', key('ready'), text(now), address)
  else
    redis.call('ZREM', key('ready'), address)
  end
end
local function keep_failed(address, entries, reason, max_failed)
  local id = count()
  redis.call('HSET', key('failed'), id, cjson.encode({id, address, text(now), reason, entries}))
  redis.call('RPUSH', key('failed:' .. address), id)
  while redis.call('LLEN', key('failed:' .. address)) > max_failed do
    redis.call('HDEL', key('failed'), redis.call('LPOP', key('failed:' .. address)))
  end
end
"""

_RECORD = Script(
    _LIBRARY
    + """
local dropped = 0
for i = 2, #ARGV do
  local report = cjson.decode(ARGV[i])
  local subject = report.subject
  if report.kind == 'event' then
    local is_news = true
    if report.once > 0 then
      is_news = redis.call('SET', key('seen:' .. subject), '1', 'NX', 'PX', math.ceil(report.once * 1000))
    end
    if is_news then dropped = dropped + append(report) end
  else
    local state = redis.call('HGET', key('subjects'), subject) or '0'
    local announced = string.sub(state, 1, 1)
    if report.kind == 'leave' then
      redis.call('ZADD', due_of(subject), text(now + report.check + i / 1000000), subject)
    else
      if announced == '0' then dropped = dropped + append(report) end
      announced = '1'
      if report.check >= 0 then redis.call('ZADD', due_of(subject), 'NX', text(now + report.check), subject) end
    end
    redis.call('HSET', key('subjects'), subject, announced .. count())
  end
end
return dropped
"""
)

_RECHECK = Script(
    _LIBRARY
    + """
local cursor = '0'
local function due(subject)
  local is_channel = string.sub(subject, -4) == ',""]'
  return text(now + ARGV[1] + (is_channel and 0.000001 or 0))
end
repeat
  local page = redis.call('HSCAN', key('subjects'), cursor, 'COUNT', 1000)
  cursor = page[1]
  for i = 1, #page[2], 2 do redis.call('ZADD', due_of(page[2][i]), 'NX', due(page[2][i]), page[2][i]) end
until cursor == '0'
-- What is long overdue came due while no node was alive: the clients are still reconnecting.
for _, name in ipairs({'due', 'due:users'}) do
  for _, subject in ipairs(redis.call('ZRANGEBYSCORE', key(name), '-inf', text(now - 5))) do
    redis.call('ZADD', key(name), due(subject), subject)
  end
end
"""
)

_CLAIM = Script(
    _LIBRARY
    + """
local name = key(ARGV[3])
local due = redis.call('ZRANGEBYSCORE', name, '-inf', text(now), 'LIMIT', 0, ARGV[1])
local checks = {}
for _, subject in ipairs(due) do
  redis.call('ZADD', name, text(now + ARGV[2]), subject)
  checks[#checks + 1] = subject
  checks[#checks + 1] = redis.call('HGET', key('subjects'), subject) or '0'
end
return checks
"""
)

_SETTLE = Script(
    _LIBRARY
    + """
local subject, version, announced = ARGV[2], ARGV[3], ARGV[4]
local state = redis.call('HGET', key('subjects'), subject) or '0'
if string.sub(state, 2) ~= version then
  redis.call('ZADD', due_of(subject), text(now), subject)
  return 0
end
redis.call('ZREM', due_of(subject), subject)
-- Earlier versions kept users among the channels.
redis.call('ZREM', key('due'), subject)
if announced == '1' then
  redis.call('HSET', key('subjects'), subject, '1' .. count())
else
  redis.call('HDEL', key('subjects'), subject)
end
if ARGV[5] ~= '' then append(cjson.decode(ARGV[5])) end
return 1
"""
)

_READY = Script(_LIBRARY + "return redis.call('ZRANGEBYSCORE', key('ready'), '-inf', text(now), 'LIMIT', 0, ARGV[1])")

_TAKE = Script(
    _LIBRARY
    + """
local address = ARGV[1]
local at = redis.call('ZSCORE', key('ready'), address)
if at == false or tonumber(at) > now then return false end
local entries = redis.call('LRANGE', key('wait:' .. address), 0, ARGV[2] - 1)
if #entries == 0 then
  redis.call('ZREM', key('ready'), address)
  return false
end
local lease = count()
redis.call('ZADD', key('ready'), text(now + ARGV[3]), address)
redis.call('HSET', key('state:' .. address), 'lease', lease)
return {lease, redis.call('HGET', key('state:' .. address), 'attempts') or '0', entries}
"""
)

_DONE = Script(
    _LIBRARY
    + """
local address = ARGV[1]
if not is_leased(address, ARGV[2]) then return 0 end
redis.call('LTRIM', key('wait:' .. address), ARGV[3], -1)
free(address)
return 1
"""
)

_DEFER = Script(
    _LIBRARY
    + """
local address, wait, state = ARGV[1], key('wait:' .. ARGV[1]), key('state:' .. ARGV[1])
if not is_leased(address, ARGV[2]) then return 0 end
redis.call('HSET', state, 'lease', '')
redis.call('HINCRBY', state, 'attempts', 1)
redis.call('HSETNX', state, 'failing', text(now))
redis.call('ZADD', key('ready'), text(now + ARGV[3]), address)
local limit = now - ARGV[4]
local given_up = 0
if tonumber(redis.call('HGET', state, 'failing')) <= limit then
  local part = {}
  while true do
    local entry = redis.call('LINDEX', wait, 0)
    if entry == false or tonumber(cjson.decode(entry)[2]) > limit then break end
    redis.call('LPOP', wait)
    part[#part + 1] = entry
    given_up = given_up + 1
    if #part == tonumber(ARGV[6]) then
      keep_failed(address, part, ARGV[5], tonumber(ARGV[7]))
      part = {}
    end
  end
  if #part > 0 then keep_failed(address, part, ARGV[5], tonumber(ARGV[7])) end
  if redis.call('EXISTS', wait) == 0 then redis.call('ZREM', key('ready'), address) end
end
return given_up
"""
)

_GIVE_UP = Script(
    _LIBRARY
    + """
local address, wait = ARGV[1], key('wait:' .. ARGV[1])
if not is_leased(address, ARGV[2]) then return 0 end
local entries = redis.call('LRANGE', wait, 0, ARGV[3] - 1)
keep_failed(address, entries, ARGV[4], tonumber(ARGV[5]))
redis.call('LTRIM', wait, ARGV[3], -1)
free(address)
return #entries
"""
)

_FAILED = Script(_LIBRARY + "return redis.call('HVALS', key('failed'))")

_POP_FAILED = Script(
    _LIBRARY
    + """
local ids = ARGV[1] ~= '' and {ARGV[1]} or redis.call('HKEYS', key('failed'))
table.sort(ids, function(a, b) return tonumber(a) < tonumber(b) end)
local popped = 0
for _, id in ipairs(ids) do
  local text_of_batch = redis.call('HGET', key('failed'), id)
  if text_of_batch then
    local batch = cjson.decode(text_of_batch)
    local address = batch[2]
    redis.call('HDEL', key('failed'), id)
    redis.call('LREM', key('failed:' .. address), 0, id)
    popped = popped + 1
    if ARGV[2] == 'retry' then
      local entries = {}
      for i, entry in ipairs(batch[5]) do
        local parts = cjson.decode(entry)
        entries[i] = cjson.encode({parts[1], text(now), parts[3]})
      end
      local lease = redis.call('HGET', key('state:' .. address), 'lease')
      push(address, entries, not lease or lease == '')
    end
  end
end
return popped
"""
)


WEBHOOK_SCRIPTS = (
    _RECORD,
    _RECHECK,
    _CLAIM,
    _SETTLE,
    _READY,
    _TAKE,
    _DONE,
    _DEFER,
    _GIVE_UP,
    _FAILED,
    _POP_FAILED,
)


def _join(*parts: str) -> str:
    return msgspec.json.encode(parts).decode()


def _name(address: Address) -> str:
    return _join(address.app_id, address.url, *(("users",) if address.is_of_users else ()))


def _subject(text: str) -> Subject:
    return Subject(*msgspec.json.decode(text, type=tuple[str, str, str]))


def _entry(text: str) -> QueuedEvent:
    at, since, event = msgspec.json.decode(text, type=tuple[str, str, str])
    return QueuedEvent(float(at), float(since), event)


class RedisQueue:
    """A `WebhookQueue` in Redis. `commands` must know WEBHOOK_SCRIPTS and may be shared with other engines."""

    def __init__(self, commands: RedisCommands, names: Names) -> None:
        self._commands = commands
        self._key = names.webhooks

    async def start(self) -> None:
        """Connect. Raises QueueUnavailable if Redis rejects our credentials. If Redis is unreachable, retries in the
        background.
        """
        try:
            await self._commands.open()
        except RedisRefused as error:
            raise QueueUnavailable(str(error).removesuffix(".")) from None

    async def stop(self) -> None:
        await self._commands.close()

    async def record(self, reports: Sequence[WebhookReport]) -> int:
        return int(await self._run(_RECORD, MAX_WAITING, *(_report(report) for report in reports)))

    async def recheck(self, in_s: float) -> None:
        await self._run(_RECHECK, in_s)

    async def claim(self, limit: int, lease_s: float, *, of_users: bool) -> Sequence[Check]:
        due = "due:users" if of_users else "due"
        found = [part.decode() for part in await self._run(_CLAIM, limit, lease_s, due)]
        return [
            Check(_subject(subject), state[1:], state[0] == "1")
            for subject, state in zip(found[::2], found[1::2], strict=True)
        ]

    async def settle(self, check: Check, *, is_announced: bool, report: WebhookReport | None) -> bool:
        subject = _join(check.subject.app_id, check.subject.channel, check.subject.user_id)
        event = "" if report is None else _report(report)
        return bool(await self._run(_SETTLE, MAX_WAITING, subject, check.version, int(is_announced), event))

    async def ready(self, limit: int) -> Sequence[Address]:
        return [self._address(name.decode()) for name in await self._run(_READY, limit)]

    async def take(self, address: Address, limit: int, lease_s: float) -> Batch | None:
        found = await self._run(_TAKE, _name(address), limit, lease_s)
        if not found:
            return None
        lease, attempts, entries = found
        return Batch(address, lease.decode(), tuple(_entry(entry.decode()) for entry in entries), int(attempts))

    async def done(self, batch: Batch) -> None:
        await self._run(_DONE, _name(batch.address), batch.lease, len(batch.entries))

    async def defer(self, batch: Batch, again_in_s: float, give_up_after_s: float, reason: str) -> int:
        name, size = _name(batch.address), max(1, len(batch.entries))
        return int(await self._run(_DEFER, name, batch.lease, again_in_s, give_up_after_s, reason, size, MAX_FAILED))

    async def give_up(self, batch: Batch, reason: str) -> int:
        name = _name(batch.address)
        return int(await self._run(_GIVE_UP, name, batch.lease, len(batch.entries), reason, MAX_FAILED))

    async def failed(self, limit: int = 1_000) -> Sequence[FailedBatch]:
        batches = [self._failed_batch(text.decode()) for text in await self._run(_FAILED)]
        return sorted(batches, key=lambda batch: batch.id, reverse=True)[:limit]

    async def retry(self, batch_id: int | None) -> int:
        return int(await self._run(_POP_FAILED, "" if batch_id is None else batch_id, "retry"))

    async def forget(self, batch_id: int | None) -> int:
        return int(await self._run(_POP_FAILED, "" if batch_id is None else batch_id, "forget"))

    async def _run(self, script: Script, *arguments: Any) -> Any:
        try:
            return await self._commands.run(script, (self._key,), *arguments)
        except RedisUnavailable as error:
            raise QueueUnavailable(f"The webhook queue in Redis is unavailable: {error}") from None

    def _address(self, name: str) -> Address:
        app_id, url, *of_users = msgspec.json.decode(name, type=tuple[str, ...])
        return Address(app_id, url, bool(of_users))

    def _failed_batch(self, text: str) -> FailedBatch:
        number, address, failed_at, reason, entries = msgspec.json.decode(
            text, type=tuple[str, str, str, str, list[str]]
        )
        return FailedBatch(
            int(number), self._address(address), float(failed_at), reason, tuple(_entry(entry) for entry in entries)
        )


def _report(report: WebhookReport) -> str:
    subject = report.subject
    fields = {
        "kind": report.kind,
        "subject": _join(subject.app_id, subject.channel, subject.user_id),
        "at": report.at,
        "event": report.event,
        "addresses": [_name(address) for address in report.addresses],
        "check": -1.0 if report.check_in_s is None else report.check_in_s,
        "once": report.once_for_s,
    }
    return msgspec.json.encode(fields).decode()
