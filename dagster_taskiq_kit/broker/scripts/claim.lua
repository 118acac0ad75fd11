-- Takes one message for one free slot: queued -> claimed, with an owner token.
-- ARGV: worker_id, lane, token, oldest_first ('1' or '0'), newest schema it reads, count of kinds,
--   kinds..., queues...
-- Returns: {1, task_id, kind, queue, run_id, payload, deliveries, waited_ms, handed_over, band}, or when nothing waits
--   {0, door key, last id, door key, last id, ...}: block on those with XREAD, and no wake-up is lost.
-- Atomic because choosing the head and taking it must be one act; the answer is kept under the lane,
-- so that the same token asked again after a lost reply gets the same message.
-- Order: highest band over all queues; within a band the head that waited longest; with oldest_first
-- the longest-waiting head of all, so that no band starves. A paused queue hands out nothing. In a namespace of a newer schema nothing
-- waits for this worker.
local worker, lane, token, oldest_first, schema, kind_count = unpack(ARGV)
local kinds, queues = {}, {}
for i = 7, 6 + kind_count do kinds[#kinds + 1] = ARGV[i] end
for i = 7 + kind_count, #ARGV do queues[#queues + 1] = ARGV[i] end
local paused = {}
for _, queue in ipairs(redis.call('SMEMBERS', key.paused())) do paused[queue] = true end
local readable = (finite(redis.call('GET', key.schema())) or 0) <= tonumber(schema)

local function answer(id)
  local r = read(id)
  return {1, id, r.kind, r.queue, r.run_id, r.payload or '', r.deliveries,
    math.max(0, r.claimed_at - r.queued_at), r.handed_over or '0', r.band}
end

local last = redis.call('HMGET', key.claim(worker, lane), 'token', 'id')
if last[1] == token then
  local known = redis.call('HMGET', key.record(last[2]), 'owner', 'state')
  if known[1] == token and known[2] == 'claimed' then return answer(last[2]) end
end

-- Whether bytes are UTF-8: workers know an id as text.
local function is_text(bytes)
  local rest = string.gsub(bytes, '[\194-\223][\128-\191]', '')
  rest = string.gsub(rest, '[\224-\239][\128-\191][\128-\191]', '')
  rest = string.gsub(rest, '[\240-\244][\128-\191][\128-\191][\128-\191]', '')
  return not string.find(rest, '[\128-\255]')
end

-- What keeps a queued record from being handed out; nil when nothing does.
local function fault_of(id, record, queue, kind, band)
  if not is_text(id) then return 'its id is no text' end
  if record.state ~= 'queued' then return 'its state is ' .. tostring(record.state) end
  for name, wanted in pairs({queue = queue, kind = kind, band = tostring(band)}) do
    if record[name] ~= wanted then return 'its ' .. name .. ' is ' .. tostring(record[name]) end
  end
  if record.fault then return record.fault end
  if not is_text(record.run_id) then return 'its run is no text' end
end

-- Ends a record that nobody can execute: a dead letter with the reason, and an end that its run hears.
local function condemn(id, record, queue, kind, band, fault)
  local reason = 'Message ' .. id .. ' cannot be read: ' .. fault .. '.'
  local kept = {
    kind = kind, queue = queue, band = tostring(band), run_id = record.run_id or '', state = 'refused',
    queued_at = int(now_ms()), ended_at = int(now_ms()), deliveries = '0',
    detail = cjson.encode({reason = reason, dead = true}),
  }
  kept.payload = record.payload
  add_dead_letter(id, kept, reason)
  kept.payload = nil
  redis.call('ZREM', key.waiting(queue, kind), id)
  create(id, kept)
  redis.call('EXPIRE', key.record(id), DAY_S)
  close_run(id, kept)
  ring(id, kept, 'refused', kept.detail)
end

local best
local function consider(queue, kind, band)
  if paused[queue] then return end
  local stream = key.stream(queue, kind, band)
  while true do
    local heads = redis.pcall('XRANGE', stream, '-', '+', 'COUNT', 1)
    local head = not heads.err and heads[1]
    if not head then return end
    local id, record = head[2][2], read(head[2][2])
    if record and record.entry == head[1] then
      local fault = fault_of(id, record, queue, kind, band)
      if not fault then
        local waiting_since = finite(head[2][4]) or tonumber(record.queued_at)
        if not best or waiting_since < best.since then best = {id = id, since = waiting_since} end
        return
      end
      condemn(id, record, queue, kind, band, fault)
    elseif not record and redis.call('EXISTS', key.record(id)) == 1 then
      condemn(id, {}, queue, kind, band, 'its key holds no record')
    end
    redis.call('XDEL', stream, head[1]) -- its record is gone or moved on: the entry means nothing
    if redis.call('EXISTS', key.record(id)) == 0 then redis.call('ZREM', key.waiting(queue, kind), id) end
  end
end

for band = readable and TOP_BAND or -1, 0, -1 do
  for _, queue in ipairs(queues) do
    for _, kind in ipairs(kinds) do consider(queue, kind, band) end
  end
  if best and oldest_first == '0' then break end
end

if best then
  local record, at = read(best.id), now_ms()
  move(best.id, record, 'claimed', at, {
    owner = token, worker = worker, claimed_at = int(at), deliveries = int(record.deliveries + 1),
  })
  redis.call('HDEL', key.record(best.id), 'entry')
  redis.call('HSET', key.claim(worker, lane), 'token', token, 'id', best.id)
  redis.call('EXPIRE', key.claim(worker, lane), HOUR_S)
  return answer(best.id)
end

local doors = {0}
for _, queue in ipairs(queues) do
  for _, kind in ipairs(kinds) do
    local door = key.door(queue, kind)
    local newest = redis.call('XREVRANGE', door, '+', '-', 'COUNT', 1)[1]
    doors[#doors + 1] = door
    doors[#doors + 1] = newest and newest[1] or '0-0'
  end
end
return doors
