-- Reads queues, workers and the server at one moment. O(queues + workers). Changes nothing but keys that
-- somebody gave another type, which are set aside (key_types.lua).
-- ARGV: none
-- Returns: JSON {now_ms, queues: [...], paused: [...], workers: [...], counters: [...], dead_letters, info}
-- Atomic so that all numbers are of one view of time and add up.
local KINDS = {'run', 'step', 'task'}
local at = now_ms()

-- There may be thousands of queues: a key of another type is read as empty, and not looked for.
local function head_score(zset)
  local head = redis.pcall('ZRANGE', zset, 0, 0, 'WITHSCORES')
  return not head.err and finite(head[2]) or nil
end

local function size(zset)
  local count = redis.pcall('ZCARD', zset)
  return type(count) == 'number' and count or 0
end

local queues = {}
local used = redis.call('ZRANGE', key.queues(), 0, -1, 'WITHSCORES')
for i = 1, #used, 2 do
  local name = used[i]
  local queue = {name = name, first_used_ms = finite(used[i + 1]) or at, waiting = {}, oldest_at_ms = {}}
  for _, kind in ipairs(KINDS) do
    queue.waiting[kind] = size(raw.waiting(name, kind))
    if queue.waiting[kind] > 0 then
      queue.oldest_at_ms[kind] = head_score(raw.waiting(name, kind))
    end
  end
  queue.claimed = size(raw.claimed(name))
  queue.oldest_claimed_at_ms = head_score(raw.claimed(name))
  queue.running = size(raw.running(name))
  queue.oldest_running_at_ms = head_score(raw.running(name))
  local recent = redis.pcall('ZCOUNT', raw.recent(name), at - HOUR_S * 1000, '+inf')
  queue.recent = type(recent) == 'number' and recent or 0
  queue.dead_letters = size(raw.buried(name))
  queues[#queues + 1] = queue
end

local function held_by(worker)
  local held = {}
  for _, id in ipairs(redis.call('SMEMBERS', key.held(worker))) do
    local record = redis.pcall('HMGET', key.record(id), 'state', 'queue', 'claimed_at', 'began_at')
    if not record.err and record[1] and record[2] and finite(record[4] or record[3]) then
      held[#held + 1] = {
        id = id, state = record[1], queue = record[2], since_ms = finite(record[4] or record[3]),
      }
    end
  end
  return held
end

local workers = {}
local leases = redis.call('ZRANGE', key.workers(), 0, -1, 'WITHSCORES')
for i = 1, #leases, 2 do
  local entry = redis.call('HMGET', key.worker(leases[i]), 'card', 'renewed_at')
  if entry[1] then
    workers[#workers + 1] = {
      id = leases[i], lease_until_ms = finite(leases[i + 1]) or at, card = entry[1],
      renewed_at_ms = finite(entry[2]), held = held_by(leases[i]),
    }
  end
end

local lost = {}
local lost_at = redis.call('ZRANGE', key.lost_workers(), at - HOUR_S * 1000, '+inf', 'BYSCORE', 'WITHSCORES')
for i = 1, #lost_at, 2 do
  lost[#lost + 1] = {
    id = lost_at[i], at_ms = finite(lost_at[i + 1]) or at,
    card = redis.call('HGET', key.worker(lost_at[i]), 'card') or nil,
  }
end

-- An ACL user may be denied INFO; health says then that it does not know.
local info = redis.pcall('INFO', 'server', 'clients', 'memory', 'persistence', 'stats')
-- cjson writes an empty table as {}, not []; the reader knows which of them are lists.
return cjson.encode({
  now_ms = at, queues = queues, paused = redis.call('SMEMBERS', key.paused()), workers = workers, lost_workers = lost,
  objectives = redis.call('HGETALL', key.objectives()),
  counters = redis.call('HGETALL', key.counters()),
  dead_letters = redis.call('XLEN', key.dead()),
  info = type(info) == 'string' and info or nil,
  watched_ms = finite(redis.call('GET', key.watched())),
  born_ms = finite(redis.call('GET', key.born())),
})
