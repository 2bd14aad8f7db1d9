"""The Lua scripts of the broker in Redis, each atomic."""

from __future__ import annotations

from smartlink.server.cluster.brokers.kept_bytes import KEPT_SCRIPTS, USED
from smartlink.server.cluster.brokers.log import PER_EVENT
from smartlink.server.cluster.redis.commands import Script

__all__ = ["BEAT", "BROKER_SCRIPTS", "PUBLISH", "REPLAY", "RETAIN"]

PUBLISH = Script(
    """
local verb, body, count, ttl_s, name, most = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4], ARGV[5], tonumber(ARGV[6])
local entry, dropped = body, 0
local function size(entry) return #entry + """
    + str(PER_EVENT)
    + """ end
local function before(entry) return tonumber(string.match(entry, '^"b":(%d+),')) or 0 end
if most > 0 then
  local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
  if last then
    local sum = before(last[2][2]) + size(last[2][2])
    entry = string.format('"b":%.0f,"l":"%s",', sum, last[1]) .. body
    local start, is_enough = '-', false
    while not is_enough do
      local first = redis.call('XRANGE', KEYS[1], start, '+', 'COUNT', 10)
      is_enough = #first == 0
      for _, each in ipairs(first) do
        if sum + size(entry) - before(each[2][2]) <= most then is_enough = true break end
        dropped, start = dropped + 1, '(' .. each[1]
      end
    end
    if dropped > 0 then count = math.min(count, redis.call('XLEN', KEYS[1]) + 1 - dropped) end
  end
end
local id = redis.call('XADD', KEYS[1], 'MAXLEN', count, '*', 'm', entry)
redis.call('EXPIRE', KEYS[1], ttl_s)
redis.call(verb, name, '{"v":1,"i":"' .. id .. '",' .. body)
"""
    + USED
    + """
return {used, redis.call('XLEN', KEYS[1]) == 1 and dropped == 0 and 1 or 0, dropped}
"""
)
"""Write to a stream and publish. With a bound in bytes, the stream loses its oldest entries, and each tells how many
bytes were written before it (`b`), and the id of the one before (`l`). Returns the stream's memory, whether this is its
first entry, and how many were lost to the bound."""
# A stream that begins with an entry no newer than a position holds everything after it. So an empty one gets an entry
# without content.
RETAIN = Script(
    """
if redis.call('EXISTS', KEYS[1]) == 0 then redis.call('XADD', KEYS[1], '*', 'm', '') end
if redis.call('TTL', KEYS[1]) < tonumber(ARGV[1]) then redis.call('EXPIRE', KEYS[1], ARGV[1]) end
"""
    + USED
    + """
local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
return {last[1], used, last[2][2] == '' and 1 or 0}
"""
)
REPLAY = Script("""
local first = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)
if not first[1] then return {} end
local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)
local before = string.match(first[1][2][2], '^"b":%d+,"l":"([0-9-]+)",')
return {before or first[1][1], last[1][1], redis.call('XRANGE', KEYS[1], ARGV[1], '+')}
""")
# The channel is an argument, not a key: a moving slot would refuse a script with a key that does not exist.
BEAT = Script("""
local now = redis.call('TIME')
local ms = now[1] .. string.format('%03d', math.floor(now[2] / 1000))
return redis.call(ARGV[1], ARGV[2], '{"v":1,"t":' .. ms .. '}')
""")
BROKER_SCRIPTS = (PUBLISH, BEAT, RETAIN, REPLAY, *KEPT_SCRIPTS)
