-- Gives a message back to its queue: a claimed one because its child died before it began or its
-- worker drains; a running run because its worker drains, and the next owner resumes it.
-- ARGV: task_id, token, max_deliveries (0: this delivery does not count), reason, outcome_ttl_s
-- Returns: 'queued', 'refused' (delivered too often: now a dead letter), or 'revoked'.
-- Atomic because a message must never be in no stream and nobody's at once.
local id, token, max_deliveries, reason, ttl_s = unpack(ARGV)
max_deliveries = tonumber(max_deliveries)
local record = read(id)
if not record or record.owner ~= token then return 'revoked' end
if record.state == 'queued' then return 'queued' end
local handed_over = record.state == 'running' and record.kind == 'run'
if record.state ~= 'claimed' and not handed_over then return 'revoked' end
local at = now_ms()
if max_deliveries > 0 and tonumber(record.deliveries) >= max_deliveries then
  bury(id, record, reason)
  conclude(id, record, 'refused', at, cjson.encode({reason = reason, dead = true}), ttl_s)
  return 'refused'
end
local fields = {}
if max_deliveries == 0 then fields.deliveries = int(record.deliveries - 1) end
if handed_over then fields.handed_over = '1' end
move(id, record, 'queued', at, fields)
if max_deliveries > 0 then count('redelivered', record) end
enqueue(id, record)
return 'queued'
