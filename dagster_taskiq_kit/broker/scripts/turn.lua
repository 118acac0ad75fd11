-- Gives the turn at a duty to a worker, who keeps it until it leaves the registry.
-- ARGV: duty, worker_id, what the turn was when the asker last saw it, if that is too long ago, or ''
-- Returns: '' for who has the turn now, else what the turn is: holder and how often it took it.
-- Atomic because two workers may ask at once, and one must win. No clock has a say: a holder that is
-- dead is taken out of the registry by the rescue, and one that lives and does not come back to its
-- duty is found by others who see the turn unchanged.
local duty, worker, overdue = unpack(ARGV)
local turn = key.turn(duty)
local last = redis.call('HMGET', turn, 'holder', 'times')
local holder, now = last[1], (last[1] or '') .. '#' .. (last[2] or '')
if holder and holder ~= worker and now ~= overdue and redis.call('ZSCORE', key.workers(), holder) then
  return now
end
redis.call('HSET', turn, 'holder', worker)
add(turn, 'times', 1)
redis.call('EXPIRE', turn, DAY_S)
return ''
