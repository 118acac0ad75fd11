-- Takes from workers whose lease has expired what they held, and tells the orchestrators.
-- ARGV: worker_id of the rescuer, round_ms, max_deliveries, outcome_ttl_s, most workers in one call
-- Returns: a flat list of task_id, state ('queued', 'refused' or 'lost'), worker_id; empty also when
--   another worker rescues in this round.
-- Atomic because a renewal of the worker in the middle would find half of its messages taken.
local rescuer, round_ms, max_deliveries, ttl_s, most = unpack(ARGV)
if not redis.call('SET', key.round('rescue'), rescuer, 'PX', round_ms, 'NX') then return {} end
local at, done = now_ms(), {}
for _, worker in ipairs(redis.call('ZRANGE', key.workers(), '-inf', at, 'BYSCORE', 'LIMIT', 0, most)) do
  local known = redis.call('HMGET', key.worker(worker), 'card', 'renewed_at')
  local card = known[1] and cjson.decode(known[1]) or {}
  local silent_s = math.floor((at - (known[2] or at)) / 1000)
  local reason = string.format('Worker %s on host %s was not heard for %d s.', worker,
    card.host or 'unknown', silent_s)
  local detail = cjson.encode({
    reason = reason, worker = worker, host = card.host or '', pid = card.pid or 0,
    last_heartbeat_ms = tonumber(known[2] or at),
  })
  for _, id in ipairs(redis.call('SMEMBERS', key.held(worker))) do
    local record = read(id)
    if record then
      take_from(id, record, tonumber(max_deliveries), reason, detail, at, ttl_s)
      done[#done + 1] = id
      done[#done + 1] = record.state
      done[#done + 1] = worker
    end
  end
  redis.call('ZREM', key.workers(), worker)
  redis.call('ZREMRANGEBYSCORE', key.lost_workers(), '-inf', at - HOUR_S * 1000)
  redis.call('ZADD', key.lost_workers(), at, worker)
  redis.call('HINCRBY', key.counters(), 'worker_lost||', 1)
  redis.call('EXPIRE', key.lost_workers(), HOUR_S)
  redis.call('DEL', key.held(worker), key.unnamed(worker))
end
return done
