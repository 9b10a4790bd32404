"""What happens inside Redis: each script is atomic, and writes absolute values, so that doing it twice does no harm.

Lua's numbers are doubles: exact up to 2^53 nano-dollars, nine million dollars in one window.

Keys of a tenant share a hash tag, so that all levels of one action live on one node of a cluster:

    gw:{tenant}:generation            which filling of this Redis it is; absent: nothing is granted
    gw:{tenant}:next, :joined:GEN     the filling that is being made, and who has told what it holds
    gw:{tenant}:of:REPLICA            the accounts in which a replica holds something
    gw:{tenant}:g:LEVEL|COUNTER|WINDOW   per replica: how much it may use in all (booked, held and not yet used)
    gw:{tenant}:m:LEVEL|COUNTER       per second: what was taken in it, of what is counted by the minute
"""

from __future__ import annotations

# KEYS: generation, of, then one for each item.
# ARGV: generation, replica, now_s, then for each item: kind, limit, mine, need, want, life_s.
# Answer: {"away"} for another generation; {"no", item, others, wait_s} for the first item without room;
# else {"ok", granted, others, granted, others, ...}.
EXTEND = """
local run = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')
if redis.call('GET', KEYS[1]) ~= ARGV[1] or string.sub(ARGV[1], 1, #run) ~= run then return {'away'} end
local replica, now = ARGV[2], tonumber(ARGV[3])
local items = {}
for i = 3, #KEYS do
  local a = 4 + (i - 3) * 6
  local item = {key = KEYS[i], kind = ARGV[a], limit = tonumber(ARGV[a + 1]), mine = tonumber(ARGV[a + 2]),
    need = tonumber(ARGV[a + 3]), want = tonumber(ARGV[a + 4]), life = tonumber(ARGV[a + 5]), others = 0, wait = 0}
  if item.kind == 'grant' then
    local all = redis.call('HGETALL', item.key)
    item.shares = #all / 2
    for f = 1, #all, 2 do
      if all[f] ~= replica then item.others = item.others + tonumber(all[f + 1]) end
    end
  else
    local all = redis.call('HGETALL', item.key)
    local seconds = {}
    for f = 1, #all, 2 do
      local second = tonumber(all[f])
      if second < now - 60 then redis.call('HDEL', item.key, all[f])
      else
        item.others = item.others + tonumber(all[f + 1])
        seconds[#seconds + 1] = {second, tonumber(all[f + 1])}
      end
    end
    item.shares = 1
    local excess = item.others + item.need - item.limit
    if excess > 0 then
      table.sort(seconds, function(x, y) return x[1] < y[1] end)
      for _, one in ipairs(seconds) do
        if excess <= 0 then break end
        excess = excess - one[2]
        item.wait = one[1] + 61 - now
      end
    end
  end
  local room = item.limit - item.others
  if item.kind == 'grant' then room = room - item.mine end
  if room < item.need then return {'no', i - 3, string.format('%.0f', item.others), math.max(1, item.wait)} end
  local spare = math.floor((room - item.need) / (2 * math.max(1, item.shares)))
  item.grant = item.need + math.max(0, math.min(item.want - item.need, spare))
  items[#items + 1] = item
end
local answer = {'ok'}
for _, item in ipairs(items) do
  if item.kind == 'grant' then
    redis.call('HSET', item.key, replica, string.format('%.0f', item.mine + item.grant))
    redis.call('SADD', KEYS[2], item.key)
  else
    redis.call('HINCRBY', item.key, tostring(now), string.format('%.0f', item.grant))
  end
  redis.call('EXPIRE', item.key, item.life)
  answer[#answer + 1] = string.format('%.0f', item.grant)
  answer[#answer + 1] = string.format('%.0f', item.others)
end
return answer
"""

# KEYS: generation, of, then one for each item.
# ARGV: generation, replica, then for each item: kind, value, second, life_s.
# A grant is set to what the replica says (it only ever gives back, or tells what is a fact); of what is counted by the
# minute, `value` is added to a second that still counts. Answer: {"away"}, or what the others hold in each item.
TELL = """
local run = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')
if redis.call('GET', KEYS[1]) ~= ARGV[1] or string.sub(ARGV[1], 1, #run) ~= run then return {'away'} end
local replica, answer = ARGV[2], {'ok'}
for i = 3, #KEYS do
  local a = 3 + (i - 3) * 4
  local kind, value, second, life = ARGV[a], ARGV[a + 1], ARGV[a + 2], tonumber(ARGV[a + 3])
  local others = 0
  if kind == 'grant' then
    if tonumber(value) == 0 then
      redis.call('HDEL', KEYS[i], replica)
    else
      redis.call('HSET', KEYS[i], replica, value)
      redis.call('SADD', KEYS[2], KEYS[i])
      redis.call('EXPIRE', KEYS[i], life)
    end
    local all = redis.call('HGETALL', KEYS[i])
    for f = 1, #all, 2 do
      if all[f] ~= replica then others = others + tonumber(all[f + 1]) end
    end
  elseif redis.call('HEXISTS', KEYS[i], second) == 1 then
    redis.call('HINCRBY', KEYS[i], second, value)
  end
  answer[#answer + 1] = string.format('%.0f', others)
end
return answer
"""
