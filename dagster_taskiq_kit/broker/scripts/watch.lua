-- Takes or renews the watch of the health sensor over this namespace.
-- ARGV: who (JSON), lease_ms
-- Returns: who has the watch.
-- Atomic so that two sensors that tick at once do not both think that they have it.
local who, lease_ms = unpack(ARGV)
local holder = redis.call('GET', key.watch())
if holder and holder ~= who then return holder end
redis.call('SET', key.watch(), who, 'PX', lease_ms)
redis.call('SET', key.watched(), int(now_ms()))
return who
