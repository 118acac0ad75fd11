-- Forgets queues that nobody has used for long: a misspelt name would be read and shown for ever.
-- ARGV: keep_ms
-- Returns: a list of the queues that are forgotten.
-- Atomic because a message queued in the middle would stand in a queue that no list names.
local keep_ms = ARGV[1]
local KINDS = {'run', 'step', 'task'}
local at, served, forgotten = now_ms(), {}, {}
for _, each in ipairs(redis.call('ZRANGE', key.workers(), 0, -1)) do
  local card = redis.call('HGET', key.worker(each), 'card')
  local queues = card and decoded(card).queues
  for _, queue in ipairs(type(queues) == 'table' and queues or {}) do served[tostring(queue)] = true end
end

local function is_used(queue)
  if served[queue] then return true end
  if redis.call('EXISTS', key.claimed(queue), key.running(queue), key.buried(queue)) > 0 then return true end
  if redis.call('SISMEMBER', key.paused(), queue) == 1 then return true end
  for _, kind in ipairs(KINDS) do
    local rung = redis.call('XREVRANGE', key.door(queue, kind), '+', '-', 'COUNT', 1)[1]
    if rung and at - tonumber(string.match(rung[1], '^%d+')) < tonumber(keep_ms) then return true end
    if redis.call('EXISTS', key.waiting(queue, kind)) == 1 then return true end
  end
  return false
end

-- Its series end with it; 40 days without a change are behind them.
local function forget_counts(queue)
  for _, counted in ipairs({key.counters(), key.histograms()}) do
    for _, field in ipairs(redis.call('HKEYS', counted)) do
      -- A queue may be named like a kind: only what stands between the first two bars is a queue.
      if string.match(field, '^[^|]*|([^|]*)|') == queue then redis.call('HDEL', counted, field) end
    end
  end
end

for _, queue in ipairs(redis.call('ZRANGE', key.queues(), 0, -1)) do
  if not is_used(queue) then
    for _, kind in ipairs(KINDS) do
      redis.call('DEL', key.door(queue, kind))
      for band = 0, TOP_BAND do redis.call('DEL', key.stream(queue, kind, band)) end
    end
    forget_counts(queue)
    redis.call('ZREM', key.queues(), queue)
    forgotten[#forgotten + 1] = queue
  end
end
return forgotten
