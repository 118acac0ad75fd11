-- Queues again what waits by its record and has lost its place in a stream: a key that was deleted, a
-- stream that somebody else trimmed.
-- ARGV: most messages in one call
-- Returns: a list of task ids that are queued again.
-- Atomic because a claim in the middle would find a message twice.
local most, restored = tonumber(ARGV[1]), {}

local function entries_of(queue, kind)
  local count = 0
  for band = 0, TOP_BAND do
    local length = redis.pcall('XLEN', key.stream(queue, kind, band))
    count = count + (type(length) == 'number' and length or 0)
  end
  return count
end

local function restore(queue, kind)
  for _, id in ipairs(redis.call('ZRANGE', key.waiting(queue, kind), 0, -1)) do
    if #restored >= most then return end
    local record = read(id)
    if not record or record.state ~= 'queued' then
      redis.call('ZREM', key.waiting(queue, kind), id)
    elseif record.queue == queue and record.kind == kind then
      -- No worker reads a stream of a band outside 0..10: in band 0, claim.lua makes it a dead letter.
      if not is_band(record.band) then record.band = '0' end
      local entry = record.entry or '0-0'
      local found = redis.pcall('XRANGE', key.stream(queue, kind, record.band), entry, entry)
      -- An entry of the same number in a stream that began anew is another message's.
      if found.err or #found == 0 or found[1][2][2] ~= id then
        enqueue(id, record)
        restored[#restored + 1] = id
      end
    end
  end
end

for _, queue in ipairs(redis.call('ZRANGE', key.queues(), 0, -1)) do
  for _, kind in ipairs({'run', 'step', 'task'}) do
    if redis.call('ZCARD', key.waiting(queue, kind)) ~= entries_of(queue, kind) then restore(queue, kind) end
  end
end
return restored
