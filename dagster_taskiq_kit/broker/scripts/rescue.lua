-- Takes from workers that were silent for a whole lease what they held, and tells the orchestrators.
-- ARGV: max_deliveries, outcome_ttl_s, server ms of the rescuer's last look, ms that may have passed
--   since, then worker_id, renewal, s for which the rescuer saw none, for each silent worker
-- Returns: {1, task_id, state ('queued', 'refused' or 'lost'), worker_id, ...}, or {0} when the look is
--   not of a moment ago by this clock: the call was on its way for long, or the clock was set.
-- Atomic because a renewal of the worker in the middle would find half of its messages taken. Who is
-- silent is the rescuer's finding, made on its own clock; here a worker that has renewed since that
-- look is left alone. The same call again finds nothing more to take.
local max_deliveries, ttl_s, seen_at_ms, most_ms = unpack(ARGV)
local at, done = now_ms(), {1}
local since_ms = at - tonumber(seen_at_ms)
if since_ms < 0 or since_ms > tonumber(most_ms) then return {0} end

local function card_of(worker)
  local known = redis.call('HMGET', key.worker(worker), 'card', 'renewed_at')
  return decoded(known[1] or '{}'), finite(known[2] or at) or at
end

for i = 5, #ARGV, 3 do
  local worker, renewal, silent_s = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  if redis.call('ZSCORE', key.workers(), worker) and renewal_of(worker) == renewal then
    local card, renewed_at = card_of(worker)
    local reason = string.format('Worker %s on host %s was not heard for %d s.', worker,
      tostring(card.host or 'unknown'), finite(silent_s) or 0)
    local detail = cjson.encode({
      reason = reason, worker = worker, host = tostring(card.host or ''), pid = finite(card.pid) or 0,
      last_heartbeat_ms = renewed_at,
    })
    for _, id in ipairs(redis.call('SMEMBERS', key.held(worker))) do
      local record = read(id)
      if record and (record.state == 'claimed' or record.state == 'running') then
        take_from(id, record, tonumber(max_deliveries), reason, detail, at, ttl_s)
        done[#done + 1] = id
        done[#done + 1] = record.state
        done[#done + 1] = worker
      end
    end
    redis.call('ZREM', key.workers(), worker)
    -- It may thaw and claim before it renews: nobody else's old look is about that.
    add(key.worker(worker), 'renewal', 1)
    redis.call('EXPIRE', key.worker(worker), DAY_S)
    redis.call('ZREMRANGEBYSCORE', key.lost_workers(), '-inf', at - HOUR_S * 1000)
    redis.call('ZADD', key.lost_workers(), at, worker)
    add(key.counters(), 'worker_lost||', 1)
    redis.call('EXPIRE', key.lost_workers(), HOUR_S)
    redis.call('DEL', key.held(worker), key.unnamed(worker))
  end
end
return done
