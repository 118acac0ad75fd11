-- Ends a message that its owner executed.
-- ARGV: task_id, token, outcome (a terminal state, or lost), detail (JSON), outcome_ttl_s, dead letter reason or ''
-- Returns: 'ok' (also when asked again), or 'revoked' (it is not this owner's to end).
-- Atomic because outcome, indexes and bell must change together or not at all.
local id, token, outcome, detail, ttl_s, dead_reason = unpack(ARGV)
local record = read(id)
if not record or record.owner ~= token then return 'revoked' end
if record.state == outcome then return 'ok' end
if record.state ~= 'claimed' and record.state ~= 'running' then return 'revoked' end
if dead_reason ~= '' then add_dead_letter(id, record, dead_reason) end
if outcome == 'lost' then
  lose(id, record, now_ms(), detail, ttl_s)
else
  conclude(id, record, outcome, now_ms(), detail, ttl_s)
end
return 'ok'
