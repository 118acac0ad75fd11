-- Renews a worker's lease, refreshes its card, and answers with orders for what it holds. Each renewal
-- leaves another value behind, by which rescuers see that there was one.
-- ARGV: worker_id, lease_ms, card (JSON), instance id, outcome_ttl_s, then task_id, token, began
--   ('1' or '0') for each message it holds
-- Returns: a flat list of task_id, order; order is 'revoked' (not yours any more), 'cancel', or
--   'forgotten' (it runs with you and not here: state it again).
-- Atomic because the verdicts must be of the same moment as the lease. What the server thinks the
-- worker holds and it does not name twice in a row is taken from it: a claim whose answer was lost,
-- or an end that the server forgot in a crash of its own.
local worker, lease_ms, card, instance, ttl_s = unpack(ARGV)
local at = now_ms()
redis.call('SET', key.instance(), instance, 'NX')
redis.call('SET', key.born(), int(at), 'NX')
redis.call('ZADD', key.workers(), at + lease_ms, worker)
redis.call('HSET', key.worker(worker), 'card', card, 'renewed_at', int(at))
add(key.worker(worker), 'renewal', 1)
redis.call('PEXPIRE', key.worker(worker), lease_ms + DAY_S * 1000)
-- Called for their side effect: keys of another type that others read without a script are set aside.
for _, name in ipairs({'counters', 'dead', 'histograms', 'objectives', 'open_runs', 'unserved'}) do key[name]() end
for _, name in ipairs({'held', 'orders'}) do key[name](worker) end
local orders, named = {}, {}
for i = 6, #ARGV, 3 do
  local id, token, began = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  named[id] = true
  local record = redis.pcall('HMGET', key.record(id), 'owner', 'state', 'run_id')
  if record.err then record = {false, false, false} end
  local owned = record[1] == token and (record[2] == 'claimed' or record[2] == 'running')
  local order
  if began == '1' and (not record[2] or record[2] == 'queued' or (owned and record[2] == 'claimed')) then
    order = 'forgotten'
  elseif not owned then
    order = 'revoked'
  elseif record[3] ~= '' and redis.call('EXISTS', key.cancel(record[3])) == 1 then
    order = 'cancel'
  end
  if order then
    orders[#orders + 1] = id
    orders[#orders + 1] = order
  end
end
local unnamed = {}
for _, id in ipairs(redis.call('SMEMBERS', key.held(worker))) do
  if not named[id] then
    local record = read(id)
    local times = (finite(redis.call('HGET', key.unnamed(worker), id)) or 0) + 1
    if not record or (record.state ~= 'claimed' and record.state ~= 'running') then
      redis.call('SREM', key.held(worker), id)
    elseif times >= 2 then
      local reason = 'Its worker does not know of it.'
      take_from(id, record, 0, reason, cjson.encode({reason = reason}), at, ttl_s)
    else
      unnamed[#unnamed + 1] = id
      unnamed[#unnamed + 1] = times
    end
  end
end
redis.call('DEL', key.unnamed(worker))
if #unnamed > 0 then
  redis.call('HSET', key.unnamed(worker), unpack(unnamed))
  redis.call('EXPIRE', key.unnamed(worker), HOUR_S)
end
return orders
