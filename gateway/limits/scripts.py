"""What happens inside Redis: each script is atomic, and what it writes of grants are absolute values.

Lua's numbers are doubles: exact up to 2^53 nano-dollars, nine million dollars in one window.

All keys of one installation (ID: of its database) share a hash tag, so that all levels of one action live on one node
of a cluster, and two installations on one Redis share nothing:

    gw:{ID}:generation              which filling of this Redis it is; absent: nothing is granted
    gw:{ID}:next                    the filling that is being made; gw:{ID}:joined:GENERATION who has told it
    gw:{ID}:seq:REPLICA             the last question of a replica; one that comes late is not heard
    gw:{ID}:told:[TENANT,LEVEL,"told",WINDOW]
        who has told that a soft budget was passed
    gw:{ID}:GENERATION:[TENANT,LEVEL,COUNTER,WINDOW]
        of a grant, per replica: how much it may use in all (booked, held and not yet used);
        of what is counted by the minute, per second: what was taken in it;
        of `open_tokens`, per replica: what of the tokens of a minute it has only reserved, or taken ahead;
        of what was booked under a soft budget, per replica: how much
"""

from __future__ import annotations

LIFE_S = 40 * 86_400  # of a window's counters, and a little over a month
MINUTE_LIFE_S = 90
SILENT = str(2**53)
"""The last question of a replica that was ended: none of its own comes after it."""

# KEYS: generation, seq, then one for each correction, then one for each item.
# ARGV: generation, replica, seq, now_s, number of corrections, then (second, amount) of each, then the items.
# A server that was restarted with what it once knew has another run than the one its generation is named by.
_BEGIN = f"""
local run = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')
if redis.call('GET', KEYS[1]) ~= ARGV[1] or string.sub(ARGV[1], 1, #run) ~= run then return {{'away'}} end
if tonumber(redis.call('GET', KEYS[2]) or '0') >= tonumber(ARGV[3]) then return {{'late'}} end
redis.call('SET', KEYS[2], ARGV[3], 'EX', {LIFE_S})
local replica, now = ARGV[2], tonumber(ARGV[4])
local first, at = 3, 6
for _ = 1, tonumber(ARGV[5]) do
  if tonumber(ARGV[at]) >= now - 60 then
    redis.call('HINCRBY', KEYS[first], ARGV[at], ARGV[at + 1])
    redis.call('EXPIRE', KEYS[first], {MINUTE_LIFE_S})
  end
  first, at = first + 1, at + 2
end
"""

# Items: their number, then kind, limit, mine, need, want, life_s of each. Where `need` is 0 only what the others hold
# is asked for. After the keys of the items come those of what is open, one for each item of kind `tokens`.
# Answer: {"away"} for another generation; {"late"}; {"no", item, others, open} for the first item without room: what
# the others hold of it and may give back of that, and, if it is counted by the minute, second and amount of all that
# was taken, oldest first;
# else {"ok", granted, others, granted, others, ...}.
ASK = (
    _BEGIN
    + """
local items, count = {}, tonumber(ARGV[at])
at = at + 1
local opens = first + count
for i = first, first + count - 1 do
  local a = at + (i - first) * 6
  local item = {key = KEYS[i], kind = ARGV[a], limit = tonumber(ARGV[a + 1]), mine = tonumber(ARGV[a + 2]),
    need = tonumber(ARGV[a + 3]), want = tonumber(ARGV[a + 4]), life = tonumber(ARGV[a + 5]),
    others = 0, seconds = {}, shares = 1}
  if item.kind == 'tokens' then item.open, opens = KEYS[opens], opens + 1 end
  local all = redis.call('HGETALL', item.key)
  if item.kind == 'grant' then
    item.shares = math.max(1, #all / 2)
    for f = 1, #all, 2 do
      if all[f] ~= replica then item.others = item.others + tonumber(all[f + 1]) end
    end
  else
    for f = 1, #all, 2 do
      local second = tonumber(all[f])
      if second < now - 60 then redis.call('HDEL', item.key, all[f])
      else
        item.others = item.others + tonumber(all[f + 1])
        item.seconds[#item.seconds + 1] = {second, all[f + 1]}
      end
    end
  end
  local room = item.limit - item.others - item.mine
  if item.need > 0 and room < item.need then
    local open = 0
    local all = item.open and redis.call('HGETALL', item.open) or {}
    for f = 1, #all, 2 do
      if all[f] ~= replica then open = open + tonumber(all[f + 1]) end
    end
    local no = {'no', i - first, string.format('%.0f', item.others), string.format('%.0f', open)}
    table.sort(item.seconds, function(x, y) return x[1] < y[1] end)
    for _, one in ipairs(item.seconds) do
      no[#no + 1] = string.format('%.0f', one[1])
      no[#no + 1] = one[2]
    end
    return no
  end
  local spare = math.floor((room - item.need) / (2 * item.shares))
  item.grant = item.need + math.max(0, math.min(item.want - item.need, spare))
  items[#items + 1] = item
end
local answer = {'ok'}
for _, item in ipairs(items) do
  if item.grant > 0 then
    if item.kind == 'grant' then
      redis.call('HSET', item.key, replica, string.format('%.0f', item.mine + item.grant))
    else
      redis.call('HINCRBY', item.key, tostring(now), string.format('%.0f', item.grant))
    end
    if item.open then
      redis.call('HINCRBY', item.open, replica, string.format('%.0f', item.grant))
      redis.call('EXPIRE', item.open, item.life)
    end
    redis.call('EXPIRE', item.key, item.life)
  end
  answer[#answer + 1] = string.format('%.0f', item.grant)
  answer[#answer + 1] = string.format('%.0f', item.others)
end
return answer
"""
)

# Items: value, life_s. A replica says what it holds; it only ever gives back, or tells what is a fact.
# Answer: {"away"}, {"late"}, or {"ok"} and what the others hold in each item.
TELL = (
    _BEGIN
    + """
local answer = {'ok'}
for i = first, #KEYS do
  local a, others = at + (i - first) * 2, 0
  local value = ARGV[a]
  if value == '0' then
    redis.call('HDEL', KEYS[i], replica)
  else
    redis.call('HSET', KEYS[i], replica, value)
    redis.call('EXPIRE', KEYS[i], ARGV[a + 1])
  end
  local all = redis.call('HGETALL', KEYS[i])
  for f = 1, #all, 2 do
    if all[f] ~= replica then others = others + tonumber(all[f + 1]) end
  end
  answer[#answer + 1] = string.format('%.0f', others)
end
return answer
"""
)

# KEYS: generation, next, joined. ARGV: candidate, how many have to have joined.
COMPLETE = """
if redis.call('GET', KEYS[2]) ~= ARGV[1] or redis.call('SCARD', KEYS[3]) < tonumber(ARGV[2]) then return 0 end
redis.call('SET', KEYS[1], ARGV[1])
redis.call('DEL', KEYS[2])
return 1
"""
