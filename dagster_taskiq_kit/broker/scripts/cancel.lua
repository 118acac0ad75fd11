-- Cancels the messages of a run: what is queued or lost ends now, what is owned is ordered to stop.
-- ARGV: run_id, whole ('1': the run itself is cancelled, later submits too; '0': its steps only),
--   outcome_ttl_s
-- Returns: {messages cancelled, messages ordered to stop, run messages ordered to stop}
-- Atomic because a claim between removing and ordering would start what was just cancelled.
local run_id, whole, ttl_s = unpack(ARGV)
if whole == '1' then redis.call('SET', key.cancel(run_id), 1, 'EX', DAY_S) end
local at, cancelled, ordered, runs_ordered = now_ms(), 0, 0, 0
for _, id in ipairs(redis.call('SMEMBERS', key.run(run_id))) do
  local record = read(id)
  if record and (whole == '1' or record.kind == 'step') then
    if record.state == 'queued' or record.state == 'lost' then
      conclude(id, record, 'cancelled', at, '{}', ttl_s)
      cancelled = cancelled + 1
    elseif record.state == 'claimed' or record.state == 'running' then
      order_cancel(id, record)
      ordered = ordered + 1
      if record.kind == 'run' then runs_ordered = runs_ordered + 1 end
    end
  end
end
return {cancelled, ordered, runs_ordered}
