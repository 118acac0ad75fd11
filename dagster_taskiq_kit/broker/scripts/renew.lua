-- Renews a worker's lease, refreshes its card, and answers with orders for what it holds.
-- ARGV: worker_id, lease_ms, card (JSON), then task_id, token for each message it holds
-- Returns: a flat list of task_id, order; order is 'revoked' (not yours any more) or 'cancel'.
-- Atomic because the verdicts must be of the same moment as the lease.
local worker, lease_ms, card = unpack(ARGV)
local at = now_ms()
redis.call('ZADD', key.workers(), at + lease_ms, worker)
redis.call('HSET', key.worker(worker), 'card', card, 'renewed_at', int(at))
redis.call('PEXPIRE', key.worker(worker), lease_ms + HOUR_S * 1000)
redis.call('PEXPIRE', key.held(worker), lease_ms + HOUR_S * 1000)
local orders = {}
for i = 4, #ARGV, 2 do
  local id, token = ARGV[i], ARGV[i + 1]
  local record = redis.call('HMGET', key.record(id), 'owner', 'state', 'run_id')
  if record[1] ~= token or not (record[2] == 'claimed' or record[2] == 'running') then
    orders[#orders + 1] = id
    orders[#orders + 1] = 'revoked'
  elseif record[3] ~= '' and redis.call('EXISTS', key.cancel(record[3])) == 1 then
    orders[#orders + 1] = id
    orders[#orders + 1] = 'cancel'
  end
end
return orders
