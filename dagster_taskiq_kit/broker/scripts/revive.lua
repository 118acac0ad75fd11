-- Hands a lost run out again that Dagster has not started: lost -> queued.
-- ARGV: task_id, max_deliveries, reason, outcome_ttl_s
-- Returns: 'queued', 'crashed' (delivered too often: now a dead letter), the state it is in, or 'none'.
-- Atomic because the run may be cancelled or resumed at the same moment.
local id, max_deliveries, reason, ttl_s = unpack(ARGV)
local record = read(id)
if not record then return 'none' end
if record.state ~= 'lost' then return record.state end
if tonumber(record.deliveries) >= tonumber(max_deliveries) then
  local at = now_ms()
  add_dead_letter(id, record, reason)
  conclude(id, record, 'crashed', at, cjson.encode({reason = reason, dead = true}), ttl_s)
  return 'crashed'
end
return give_back(id, record, tonumber(max_deliveries), reason, now_ms(), ttl_s)
