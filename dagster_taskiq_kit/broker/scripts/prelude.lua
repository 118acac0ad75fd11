-- Prelude of every script: what a record is and how it moves.
-- KEYS[1] is the namespace with its hash tag; the key functions (`key.record(id)`, from keys.py) and
-- the table of legal transitions (`LEGAL`, from states.py) are rendered above this text.
-- Invariant: a queued record has exactly one stream entry, an owned record stands in exactly one of
-- claimed/running and in its worker's held set, an ended record stands in none of them.

local DAY_S = 86400
local HOUR_S = 3600
local TOP_BAND = 10
local MAX_ORDERS = 1000

local function now_ms()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end

-- Millisecond stamps pass 2^31; %d keeps Lua from writing them as 1.7e+12.
local function int(n) return string.format('%d', n) end

local function read(id)
  local flat = redis.call('HGETALL', key.record(id))
  if #flat == 0 then return nil end
  local record = {}
  for i = 1, #flat, 2 do record[flat[i]] = flat[i + 1] end
  return record
end

local function count(event, record)
  redis.call('HINCRBY', key.counters(), event .. '|' .. record.queue .. '|' .. record.kind, 1)
end

-- Tell the run's orchestrator; it looks into the event log for what is true.
local function ring(id, record, state, detail)
  if record.run_id == '' or record.kind ~= 'step' then return end
  local bell = key.bell(record.run_id)
  redis.call('XADD', bell, '*', 'id', id, 'state', state, 'worker', record.worker or '', 'detail', detail)
  redis.call('EXPIRE', bell, DAY_S)
end

local function leave(id, record)
  if record.state == 'queued' then
    redis.call('XDEL', key.stream(record.queue, record.kind, record.band), record.entry)
  elseif record.state == 'claimed' or record.state == 'running' then
    redis.call('ZREM', key[record.state](record.queue), id)
    redis.call('SREM', key.held(record.worker), id)
  end
end

-- Moves the record, keeping every index true. `fields` are further hash fields to set.
local function move(id, record, state, at, fields)
  if not LEGAL[record.state][state] then
    error('illegal transition ' .. record.state .. ' -> ' .. state .. ' of ' .. id)
  end
  leave(id, record)
  record.state = state
  local set = {'state', state}
  for name, value in pairs(fields or {}) do
    record[name] = value
    set[#set + 1] = name
    set[#set + 1] = value
  end
  redis.call('HSET', key.record(id), unpack(set))
  if state == 'claimed' or state == 'running' then
    redis.call('ZADD', key[state](record.queue), at, id)
    redis.call('SADD', key.held(record.worker), id)
  end
  count(state, record)
end

-- Puts the id of a queued record at the end of its stream and rings the doorbell.
local function enqueue(id, record)
  local stream = key.stream(record.queue, record.kind, record.band)
  local entry = redis.call('XADD', stream, '*', 'id', id, 'at', record.queued_at)
  redis.call('HSET', key.record(id), 'entry', entry)
  redis.call('XADD', key.door(record.queue, record.kind), 'MAXLEN', 1, '*', 'id', id)
end

-- Ends the record: terminal state, no payload, a time to live, and a ring of the bell.
local function conclude(id, record, state, at, detail, ttl_s)
  move(id, record, state, at, {ended_at = int(at), detail = detail})
  redis.call('HDEL', key.record(id), 'payload', 'entry')
  redis.call('EXPIRE', key.record(id), ttl_s)
  if record.run_id ~= '' then redis.call('SREM', key.run(record.run_id), id) end
  ring(id, record, state, detail)
end

local function bury(id, record, reason)
  redis.call('XADD', key.dead(), '*', 'id', id, 'queue', record.queue, 'kind', record.kind,
    'run_id', record.run_id, 'reason', reason, 'payload', record.payload or '')
  count('dead', record)
end
