-- Reads what the last renewal of each registered worker left behind. Changes
-- nothing but keys of another type, which are set aside (key_types.lua).
-- ARGV: none
-- Returns: {server ms, worker_id, renewal, worker_id, renewal, ...}
-- Atomic so that all of it, and the server's clock, are of one moment.
local seen = {int(now_ms())}
for _, worker in ipairs(redis.call('ZRANGE', key.workers(), 0, -1)) do
  seen[#seen + 1] = worker
  seen[#seen + 1] = renewal_of(worker)
end
return seen
