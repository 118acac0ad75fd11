-- Takes a worker that has ended cleanly out of the registry.
-- ARGV: worker_id
-- Returns: how many messages the server still thinks it holds; 0 after a clean drain.
-- Atomic so that nobody sees a card without a lease.
local worker = ARGV[1]
local held = redis.call('SCARD', key.held(worker))
if held == 0 then
  redis.call('ZREM', key.workers(), worker)
  redis.call('DEL', key.worker(worker), key.held(worker), key.orders(worker),
    key.unnamed(worker))
end
return held
