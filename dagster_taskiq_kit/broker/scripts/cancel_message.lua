-- Cancels one message: a queued one ends now, the owner of an owned one is ordered to stop.
-- ARGV: task_id, outcome_ttl_s
-- Returns: 'cancelled', 'ordered', or 'over' (it has ended, or was never there).
-- Atomic because a claim between looking and cancelling would start what was just cancelled.
local id, ttl_s = unpack(ARGV)
local record = read(id)
if not record then return 'over' end
if record.state == 'queued' or record.state == 'lost' then
  conclude(id, record, 'cancelled', now_ms(), '{}', ttl_s)
  return 'cancelled'
end
if record.state ~= 'claimed' and record.state ~= 'running' then return 'over' end
order_cancel(id, record)
return 'ordered'
