-- Reads queues and workers at one moment; changes nothing. O(queues + workers).
-- ARGV: none
-- Returns: JSON {now_ms, queues: [...], workers: [...]}
-- Atomic so that all numbers are of one view of time and add up.
local KINDS = {'run', 'step', 'task'}
local at = now_ms()

local function head_score(zset)
  return tonumber(redis.call('ZRANGE', zset, 0, 0, 'WITHSCORES')[2])
end

local queues = {}
for _, name in ipairs(redis.call('SMEMBERS', key.queues())) do
  local queue = {name = name, waiting = {}}
  for _, kind in ipairs(KINDS) do
    local waiting = 0
    for band = 0, TOP_BAND do
      local stream = key.stream(name, kind, band)
      local length = redis.call('XLEN', stream)
      if length > 0 then
        waiting = waiting + length
        local since = tonumber(redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1][2][4])
        if not queue.oldest_at_ms or since < queue.oldest_at_ms then queue.oldest_at_ms = since end
      end
    end
    queue.waiting[kind] = waiting
  end
  queue.claimed = redis.call('ZCARD', key.claimed(name))
  queue.running = redis.call('ZCARD', key.running(name))
  queue.oldest_running_at_ms = head_score(key.running(name))
  queues[#queues + 1] = queue
end

local workers = {}
local leases = redis.call('ZRANGE', key.workers(), 0, -1, 'WITHSCORES')
for i = 1, #leases, 2 do
  local card = redis.call('HGET', key.worker(leases[i]), 'card')
  if card then
    workers[#workers + 1] = {
      id = leases[i], lease_until_ms = tonumber(leases[i + 1]), card = card,
      held = redis.call('SMEMBERS', key.held(leases[i])),
    }
  end
end
-- cjson writes an empty table as {}: give the reader a count to tell an empty list by.
return cjson.encode({
  now_ms = at, queues = queues, workers = workers, queue_count = #queues, worker_count = #workers,
})
