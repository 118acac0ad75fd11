-- Lets a claimed message begin: claimed -> running. Nothing of the user's may run before it says ok.
-- ARGV: task_id, token, outcome_ttl_s
-- Returns: 'ok', 'cancelled' (its run was cancelled meanwhile), or 'revoked' (not yours any more).
-- Atomic because the owner check and the move must not be separated by a rescue.
local id, token, ttl_s = unpack(ARGV)
local record = read(id)
if not record or record.owner ~= token then return 'revoked' end
if record.state == 'running' then return 'ok' end
if record.state ~= 'claimed' then
  return record.state == 'cancelled' and 'cancelled' or 'revoked'
end
local at = now_ms()
if record.run_id ~= '' and redis.call('EXISTS', key.cancel(record.run_id)) == 1 then
  conclude(id, record, 'cancelled', at, '{}', ttl_s)
  return 'cancelled'
end
move(id, record, 'running', at, {began_at = int(at)})
return 'ok'
