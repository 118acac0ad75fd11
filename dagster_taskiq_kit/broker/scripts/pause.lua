-- Pauses a queue, or resumes it: while it is paused nothing of it is handed out.
-- ARGV: queue, '1' to pause, '0' to resume
-- Returns: 1 when that changed something, 0 when it was so already.
-- Atomic because workers that sleep at the doors of a resumed queue must be woken.
local queue, pause = unpack(ARGV)
if pause == '1' then return redis.call('SADD', key.paused(), queue) end
local changed = redis.call('SREM', key.paused(), queue)
if changed == 1 then
  for _, kind in ipairs({'run', 'step', 'task'}) do ring_door(queue, kind, '') end
end
return changed
