-- Gives a message back to its queue: a claimed one because its child died before it began or its
-- worker drains; a running run because its worker drains, and the next owner resumes it.
-- ARGV: task_id, token, max_deliveries (0: this delivery does not count), reason, outcome_ttl_s
-- Returns: 'queued', 'refused' (delivered too often: now a dead letter), or 'revoked'.
-- Atomic because a message must never be in no stream and nobody's at once.
local id, token, max_deliveries, reason, ttl_s = unpack(ARGV)
max_deliveries = tonumber(max_deliveries)
local record = read(id)
if not record or record.owner ~= token then return 'revoked' end
if record.state == 'queued' or record.state == 'refused' then return record.state end -- asked again
local handed_over = record.state == 'running' and record.kind == 'run'
if record.state ~= 'claimed' and not handed_over then return 'revoked' end
if handed_over then
  -- It did not wait while it ran: its wait begins anew.
  record.queued_at = int(now_ms())
  redis.call('HSET', key.record(id), 'handed_over', '1', 'queued_at', record.queued_at)
end
return give_back(id, record, max_deliveries, reason, now_ms(), ttl_s)
