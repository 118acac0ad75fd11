-- Takes or renews the watch of the health sensor over this namespace, and publishes the objectives.
-- ARGV: who (JSON), lease_ms, then queue, objective (JSON) for each declared queue
-- Returns: who has the watch.
-- Atomic so that two sensors that tick at once do not both think that they have it.
local who, lease_ms = ARGV[1], ARGV[2]
local holder = redis.call('GET', key.watch())
-- A last tick in the future: the clock was set back, and with it the end of the holder's lease.
local set_back = (finite(redis.call('GET', key.watched())) or 0) > now_ms()
local held = decoded(holder or '')
local readable = type(held.location) == 'string' and type(held.sensor) == 'string'
if readable and holder ~= who and not set_back then return holder end
redis.call('SET', key.watch(), who, 'PX', lease_ms)
redis.call('SET', key.watched(), int(now_ms()))
redis.call('DEL', key.objectives())
for i = 3, #ARGV, 2 do redis.call('HSET', key.objectives(), ARGV[i], ARGV[i + 1]) end
return who
