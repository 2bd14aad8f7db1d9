"""The Lua scripts of the presence store in Redis, each atomic.

Keys of a channel (they share a hash tag): `c` node → its connections; `r` user → number of nodes that have them; `o`
users in order of arrival; `i` user → info, after a space if the id is a number; `m:<node>` that node's users → the
seconds for which each stays if the node dies;
`t` the leaves announced within ten minutes ("" for the channel itself), so that two nodes do not announce the same, and
a wrong one is reversed; `n` the number of the last join or leave, on numbered channels (see `ChannelState` in `base`).
After ten minutes without any, it restarts from the clock, in microseconds.
"""

from __future__ import annotations

from smartlink.server.cluster.redis.commands import Script

__all__ = [
    "AUDIT",
    "BEAT",
    "CHANGE",
    "COUNT",
    "COUNT_MISSED",
    "JOIN",
    "LEAVE",
    "PLACE",
    "PRESENCE_SCRIPTS",
    "REMOVE",
    "SETTLE",
    "STATE",
    "STATE_MISSED",
    "SYNC",
]

_TOLD_S = "600"

_COMMON = (
    """
local counts, mine, holders, order, infos, told = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local number, is_numbered = KEYS[7], ARGV[1] == '1'
local function version()
  return is_numbered and tonumber(redis.call('GET', number) or '0') or 0
end
local function changed()
  if not is_numbered then return 0 end
  if redis.call('EXISTS', number) == 0 then
    local time = redis.call('TIME')
    redis.call('SET', number, string.format('%.0f', time[1] * 1000000 + time[2]))
  end
  local now = redis.call('INCR', number)
  redis.call('EXPIRE', number, """
    + _TOLD_S
    + """)
  return now
end
local function total()
  local sum = 0
  for _, count in ipairs(redis.call('HVALS', counts)) do sum = sum + tonumber(count) end
  return sum
end
local function add(user, info)
  if redis.call('ZSCORE', order, user) then return end
  redis.call('HSET', infos, user, info)
  local last = redis.call('ZREVRANGE', order, 0, 0, 'WITHSCORES')
  redis.call('ZADD', order, last[2] and last[2] + 1 or 1, user)
end
local function drop(user)
  redis.call('HDEL', holders, user)
  redis.call('ZREM', order, user)
  redis.call('HDEL', infos, user)
end
local function is_number(user)
  return string.sub(redis.call('HGET', infos, user) or '', 1, 1) == ' ' and 1 or 0
end
local function members()
  local listed = {}
  for _, user in ipairs(redis.call('ZRANGE', order, 0, -1)) do
    listed[#listed + 1] = user
    listed[#listed + 1] = redis.call('HGET', infos, user) or '{}'
  end
  return listed
end
local function tell(user)
  redis.call('HSET', told, user, 1)
  redis.call('EXPIRE', told, """
    + _TOLD_S
    + """)
end
"""
)

JOIN = Script(
    _COMMON
    + """
local node, count, user, info, lists = ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6] == '1'
local member, grace = ARGV[7], ARGV[8]
local first_on_channel, first_of_user = 0, 0
if total() == 0 then first_on_channel = 1; redis.call('HDEL', told, '') end
redis.call('HSET', counts, node, count)
if user ~= '' then
  if redis.call('HSETNX', mine, user, '0') == 1 and redis.call('HINCRBY', holders, user, 1) == 1 then
    first_of_user = 1
    add(user, info)
  end
  redis.call('HDEL', told, user)
end
if grace ~= '0' then redis.call('HSET', mine, member, grace) end
local at = (first_on_channel == 1 or first_of_user == 1) and changed() or version()
local known = user ~= '' and is_number(user) or 0
return {first_on_channel, first_of_user, total(), known, at, lists and members() or {}}
"""
)

LEAVE = Script(
    _COMMON
    + """
local node, count, user = ARGV[2], ARGV[3], ARGV[4]
local last_on_channel, last_of_user = 0, 0
if count == '0' then redis.call('HDEL', counts, node) else redis.call('HSET', counts, node, count) end
local left = total()
if left == 0 then last_on_channel = 1; tell('') end
if user ~= '' then
  local holders_left
  if redis.call('HDEL', mine, user) == 1 then
    holders_left = redis.call('HINCRBY', holders, user, -1)
  else
    holders_left = tonumber(redis.call('HGET', holders, user) or '0')
  end
  if holders_left <= 0 then last_of_user = 1; drop(user); tell(user) end
end
return {last_on_channel, last_of_user, left, (last_on_channel == 1 or last_of_user == 1) and changed() or version()}
"""
)

REMOVE = Script(
    _COMMON
    + """
local node, waited = ARGV[2], tonumber(ARGV[3])
local result, stay, longest = {0, 0, 0, 0}, 0, 0
local entries = redis.call('HGETALL', mine)
for at = 1, #entries, 2 do
  local user, left = entries[at], (tonumber(entries[at + 1]) or 0) - waited
  if left > 0 then
    stay = stay + 1
    longest = math.max(longest, left)
  else
    redis.call('HDEL', mine, user)
    if redis.call('HINCRBY', holders, user, -1) <= 0 then
      result[#result + 1] = user
      result[#result + 1] = is_number(user)
      drop(user)
      tell(user)
    end
  end
end
local before = redis.call('HGET', counts, node)
if stay > 0 then
  redis.call('HSET', counts, node, stay)
else
  redis.call('HDEL', counts, node)
end
if before and before ~= tostring(stay) then
  if total() == 0 then result[1] = 1; tell('') else result[2] = 1 end
end
if result[1] == 1 or #result > 4 then result[3] = changed() end
result[4] = math.ceil(longest)
return result
"""
)
"""Remove a node that died `waited` seconds ago from a channel. Returns whether it is empty now, whether fewer are left,
the number of the change, in how many seconds the last of those who stay are to be removed, and the users who are gone:
each id, and whether it is a number."""

SYNC = Script(
    _COMMON
    + """
local node, former, count, was_on = ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local users, left = tonumber(ARGV[6]), tonumber(ARGV[7])
local candidates = {}
local before = redis.call('HGET', counts, node) or '0'
if former ~= '' then
  before = redis.call('HGET', counts, former) or before
  for _, user in ipairs(redis.call('HKEYS', KEYS[8])) do
    redis.call('HINCRBY', holders, user, -1)
    candidates[user] = true
  end
  redis.call('DEL', KEYS[8])
  if redis.call('HDEL', counts, former) == 1 then was_on = '1' end
end
if redis.call('HDEL', counts, node) == 1 then was_on = '1' end
local others = total()
local occupied, vacated = 0, 0
if count == '0' then
  if others == 0 and was_on == '1' then vacated = 1 end
else
  redis.call('HSET', counts, node, count)
  if redis.call('HDEL', told, '') == 1 or was_on ~= '1' then
    if others == 0 then occupied = 1 end
  end
end
local here, added, at = {}, {}, 8
for _ = 1, users do
  local user, info, is_new, grace = ARGV[at], ARGV[at + 1], ARGV[at + 2] == '1', ARGV[at + 3]
  at = at + 4
  here[user] = true
  local holding
  if redis.call('HSET', mine, user, grace) == 1 then
    holding = redis.call('HINCRBY', holders, user, 1)
  else
    holding = tonumber(redis.call('HGET', holders, user))
  end
  add(user, info)
  local was_told = redis.call('HDEL', told, user) == 1
  if holding == 1 and (is_new or was_told) then added[#added + 1] = user end
end
for _, user in ipairs(redis.call('HKEYS', mine)) do
  if not here[user] then
    redis.call('HDEL', mine, user)
    redis.call('HINCRBY', holders, user, -1)
    candidates[user] = true
  end
end
for _ = 1, left do candidates[ARGV[at]] = true; at = at + 1 end
local gone = {}
for user in pairs(candidates) do
  if not here[user] and tonumber(redis.call('HGET', holders, user) or '0') <= 0 then
    gone[#gone + 1] = user
    gone[#gone + 1] = is_number(user)
    drop(user)
  end
end
local differs = (before ~= count and total() > 0) and 1 or 0
local is_news = occupied == 1 or vacated == 1 or #added > 0 or #gone > 0
return {occupied, vacated, added, gone, differs, is_news and changed() or version()}
"""
)
"""Reconcile a node's entries on a channel. Those who are `gone` are not announced yet: see SETTLE."""

SETTLE = Script(
    _COMMON
    + """
local result = {0}
if ARGV[2] == '1' and total() == 0 and redis.call('HSETNX', told, '', 1) == 1 then result[1] = 1; tell('') end
for at = 3, #ARGV, 2 do
  local user = ARGV[at]
  if redis.call('HEXISTS', holders, user) == 0 and redis.call('HSETNX', told, user, 1) == 1 then
    tell(user)
    result[#result + 1] = user
    result[#result + 1] = tonumber(ARGV[at + 1])
  end
end
return result
"""
)
"""Of users who left while their node was cut off, those that no node has and no leave was announced of; likewise the
channel."""

AUDIT = Script(
    _COMMON
    + """
local count = redis.call('HGET', counts, ARGV[2]) or '0'
if count == ARGV[3] and redis.call('HLEN', mine) == tonumber(ARGV[4]) then return 1 end
return 0
"""
)

CHANGE = Script(
    _COMMON
    + """
local user, info = ARGV[1], ARGV[2]
local known = redis.call('HGET', infos, user)
if not known then return {} end
if is_number(user) == 1 then info = ' ' .. info end
redis.call('HSET', infos, user, info)
return {known}
"""
)
"""Change the info of a user on the channel. Returns the previous one."""

COUNT = Script(_COMMON + "return {total(), redis.call('HLEN', holders)}")

_GONE = """
local function is_gone(user)
  return tonumber(redis.call('HGET', holders, user) or '0') - redis.call('HEXISTS', mine, user) <= 0
end
"""
"""Whether only this node has a user, who has left it."""

COUNT_MISSED = Script(
    _COMMON
    + _GONE
    + """
local users, joined = redis.call('HLEN', holders), tonumber(ARGV[4])
for at = 5, #ARGV do
  if at < 5 + joined then
    if redis.call('HEXISTS', holders, ARGV[at]) == 0 then users = users + 1 end
  elseif redis.call('HEXISTS', holders, ARGV[at]) == 1 and is_gone(ARGV[at]) then
    users = users - 1
  end
end
return {total() - tonumber(redis.call('HGET', counts, ARGV[2]) or '0') + tonumber(ARGV[3]), users}
"""
)
"""COUNT, including what this node could not write yet: its connections, users who joined, users who left."""

STATE = Script(_COMMON + "return {version(), total(), members()}")

STATE_MISSED = Script(
    _COMMON
    + _GONE
    + """
local left, listed, kept = {}, members(), {}
for at = 3, #ARGV do left[ARGV[at]] = true end
for at = 1, #listed, 2 do
  if not left[listed[at]] or not is_gone(listed[at]) then
    kept[#kept + 1] = listed[at]
    kept[#kept + 1] = listed[at + 1]
  end
end
return {0, total() - tonumber(redis.call('HGET', counts, ARGV[2]) or '0'), kept}
"""
)
"""STATE, without this node's connections, and without users whose leave it could not write yet if no other node has
them."""

PLACE = Script("""
local alive, places = KEYS[1], KEYS[2]
local node, count, most = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local elsewhere = 0
local listed = redis.call('HGETALL', places)
for at = 1, #listed, 2 do
  if listed[at] ~= node then
    if redis.call('ZSCORE', alive, listed[at]) then
      elsewhere = elsewhere + tonumber(listed[at + 1])
    else
      redis.call('HDEL', places, listed[at])
    end
  end
end
if elsewhere + count > most then return {0, elsewhere} end
redis.call('HSET', places, node, count)
return {1, elsewhere}
""")
"""Set, or request, a node's number of connections of an app. Returns whether they fit, and how many others have."""

BEAT = Script("""
local alive, claimed, connections, last = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local node, lease_ms, stall_ms, report, is_new = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4], ARGV[5]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if is_new ~= '1' and not redis.call('ZSCORE', alive, node) then return {0} end
local before = tonumber(redis.call('GET', last) or now)
if now - before > stall_ms or now < before then
  for _, other in ipairs(redis.call('ZRANGE', alive, 0, -1)) do redis.call('ZADD', alive, now + lease_ms, other) end
end
redis.call('SET', last, now)
redis.call('ZADD', alive, now + lease_ms, node)
redis.call('HSET', connections, node, report)
local dead = {}
for _, other in ipairs(redis.call('ZRANGEBYSCORE', alive, '-inf', '(' .. now)) do
  redis.call('ZREM', alive, other)
  redis.call('HDEL', connections, other)
  redis.call('ZADD', claimed, now + 2 * lease_ms, other)
  dead[#dead + 1] = other
end
for _, other in ipairs(redis.call('ZRANGEBYSCORE', claimed, '-inf', '(' .. now)) do
  redis.call('ZADD', claimed, now + 2 * lease_ms, other)
  dead[#dead + 1] = other
end
return {1, dead, redis.call('HGETALL', connections)}
""")
"""Renew a node's lease. Returns 0 if it was presumed dead (or Redis was emptied); else the dead nodes to clean up
after, and the reports of all nodes. If no node was heard for a while, Redis was unreachable: renew all leases."""

PRESENCE_SCRIPTS = (
    JOIN,
    LEAVE,
    REMOVE,
    SYNC,
    SETTLE,
    AUDIT,
    CHANGE,
    COUNT,
    COUNT_MISSED,
    STATE,
    STATE_MISSED,
    PLACE,
    BEAT,
)
