-- Prelude of every script: what a record is and how it moves.
-- KEYS[1] is the namespace with its hash tag; the key functions (`key.record(id)`, from keys.py) and
-- the table of legal transitions (`LEGAL`, from states.py) are rendered above this text.
-- Invariant: a queued record has exactly one stream entry and stands in its queue's waiting set, an owned record stands in exactly one of
-- claimed/running and in its worker's held set, and that worker has a lease; an ended record stands in
-- none of them. A run with a message that has not ended stands in the set of open runs.

local DAY_S = 86400
local HOUR_S = 3600
local TOP_BAND = 10
local FIRST_LEASE_MS = 60000
local MAX_ORDERS = 1000
local MAX_DEAD_LETTERS = 10000

local function now_ms()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end

-- Millisecond stamps pass 2^31; %d keeps Lua from writing them as 1.7e+12.
local function int(n) return string.format('%d', n) end

-- Reads JSON that others have written; an empty table when it is none.
local function decoded(text)
  local fine, value = pcall(cjson.decode, text)
  return fine and type(value) == 'table' and value or {}
end

-- A number that JSON can hold; nil for what is none.
local function finite(n)
  n = tonumber(n or nil)
  return n and n == n and n > -math.huge and n < math.huge and n or nil
end

local function is_band(band)
  return string.match(band, '^%d%d?$') and tonumber(band) <= TOP_BAND
end

-- A key of another type holds no record.
local function read(id)
  local flat = redis.pcall('HGETALL', key.record(id))
  if flat.err or #flat == 0 then return nil end
  local record = {}
  for i = 1, #flat, 2 do record[flat[i]] = flat[i + 1] end
  for _, name in ipairs({'kind', 'queue', 'band', 'run_id', 'state'}) do record[name] = record[name] or '' end
  -- What somebody else wrote over must not stop who reads it: who hands it out asks for the fault.
  for name, instead in pairs({deliveries = '0', queued_at = int(now_ms())}) do
    if not string.match(record[name] or '', '^%d%d?%d?%d?%d?%d?%d?%d?%d?%d?%d?%d?%d?%d?%d?$') then
      record.fault = 'its ' .. name .. ' is ' .. tostring(record[name])
      record[name] = instead
    end
  end
  for _, name in ipairs({'claimed_at', 'began_at'}) do
    if not finite(record[name]) then record[name] = record.queued_at end
  end
  record.worker = record.worker or ''
  return record
end

-- A count that is no number any more begins anew.
local function add(counts, field, n)
  local sum = redis.pcall('HINCRBY', counts, field, int(n))
  if type(sum) ~= 'number' then redis.call('HSET', counts, field, int(n)) end
end

local function count(event, record)
  add(key.counters(), event .. '|' .. record.queue .. '|' .. record.kind, 1)
end

-- Counts an observation into its bucket: a histogram that outlives every process.
local function observe(what, record, figure)
  figure = math.max(0, math.floor(figure))
  local bounds, bucket = BUCKETS[what], 1
  while bounds[bucket] and figure > bounds[bucket] do bucket = bucket + 1 end
  local place = what .. '|' .. record.queue .. '|' .. record.kind .. '|'
  add(key.histograms(), place .. bucket, 1)
  add(key.histograms(), place .. bounds.sum, figure)
end

local function objective_ms(queue)
  local promised = redis.call('HGET', key.objectives(), queue)
  return 1000 * (promised and finite(decoded(promised).slo_s) or DEFAULT_SLO_S)
end

-- A delivery begins or ends: how long it waited, whether that was too long, how long it ran.
local function measure(record, before, at)
  if record.state == 'running' then
    local waited_ms = at - record.queued_at
    observe('wait', record, waited_ms)
    if waited_ms > objective_ms(record.queue) then count('late', record) end
  elseif before == 'running' and record.state ~= 'queued' and record.state ~= 'lost' then
    observe('duration', record, at - record.began_at)
  end
end

-- What the process of a delivery has used, where that is known.
local function measure_use(record, detail)
  local used = decoded(detail).used
  if type(used) ~= 'table' then return end
  local user_s, system_s, peak_kib = finite(used.user_s), finite(used.system_s), finite(used.peak_kib)
  if user_s and system_s then observe('cpu', record, 1000 * (user_s + system_s)) end
  if peak_kib then observe('peak_memory', record, peak_kib) end
end

-- Remembers for an hour what went wrong with a message; health asks how often that was.
local function note_recent(event, id, record, at)
  local recent = key.recent(record.queue)
  redis.call('ZREMRANGEBYSCORE', recent, '-inf', at - HOUR_S * 1000)
  redis.call('ZADD', recent, at, event .. '|' .. id .. '|' .. record.deliveries)
  redis.call('EXPIRE', recent, HOUR_S)
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
    redis.pcall('XDEL', key.stream(record.queue, record.kind, record.band), record.entry or '')
    redis.call('ZREM', key.waiting(record.queue, record.kind), id)
  elseif record.state == 'claimed' or record.state == 'running' then
    redis.call('ZREM', key[record.state](record.queue), id)
    redis.call('SREM', key.held(record.worker), id)
  end
end

-- Moves the record, keeping every index true. `fields` are further hash fields to set.
local function move(id, record, state, at, fields)
  if not (LEGAL[record.state] or {})[state] then
    error('illegal transition ' .. record.state .. ' -> ' .. state .. ' of ' .. id)
  end
  leave(id, record)
  local before = record.state
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
    -- A worker that was rescued or has retired may claim before it renews, or never renew again:
    -- whoever holds something has a lease, or nobody would ever take it from him.
    redis.call('ZADD', key.workers(), 'NX', at + FIRST_LEASE_MS, record.worker)
  end
  -- A lost run was counted as lost; that a resume takes its place is no second end of it.
  if before ~= 'lost' or state ~= 'crashed' then count(state, record) end
  measure(record, before, at)
end

local function ring_door(queue, kind, id)
  redis.call('XADD', key.door(queue, kind), 'MAXLEN', 1, '*', 'id', id)
end

-- Puts the id of a queued record at the end of its stream and rings the doorbell.
local function enqueue(id, record)
  local stream = key.stream(record.queue, record.kind, record.band)
  local entry = redis.call('XADD', stream, '*', 'id', id, 'at', record.queued_at)
  redis.call('HSET', key.record(id), 'entry', entry)
  redis.call('ZADD', key.waiting(record.queue, record.kind), record.queued_at, id)
  ring_door(record.queue, record.kind, id)
end

-- Remembers and forgets that a message of a Dagster run has not ended.
local function open_run(id, record)
  if record.run_id == '' then return end
  redis.call('SADD', key.run(record.run_id), id)
  redis.call('EXPIRE', key.run(record.run_id), 365 * DAY_S)
  redis.call('SADD', key.open_runs(), record.run_id)
end

local function close_run(id, record)
  if record.run_id == '' then return end
  redis.call('SREM', key.run(record.run_id), id)
  if redis.call('EXISTS', key.run(record.run_id)) == 0 then
    redis.call('SREM', key.open_runs(), record.run_id)
  end
end

-- Writes a new record; whoever makes it decides whether its id goes into a stream.
local function create(id, record)
  local set = {}
  for name, value in pairs(record) do
    set[#set + 1] = name
    set[#set + 1] = value
  end
  redis.call('DEL', key.record(id))
  redis.call('HSET', key.record(id), unpack(set))
  redis.call('ZADD', key.queues(), 'NX', now_ms(), record.queue)
  open_run(id, record)
end

-- Ends the record: terminal state, no payload, a time to live, and a ring of the bell.
local function conclude(id, record, state, at, detail, ttl_s)
  move(id, record, state, at, {ended_at = int(at), detail = detail})
  measure_use(record, detail)
  redis.call('HDEL', key.record(id), 'payload', 'entry')
  redis.call('EXPIRE', key.record(id), ttl_s)
  close_run(id, record)
  ring(id, record, state, detail)
end

-- The owner is gone and with it what it executed. A run keeps its payload: it may be redelivered if
-- it never began, and is superseded when it is resumed. The loss of anything else is its end.
local function lose(id, record, at, detail, ttl_s)
  note_recent('lost', id, record, at)
  if record.kind ~= 'run' then return conclude(id, record, 'lost', at, detail, ttl_s) end
  move(id, record, 'lost', at, {ended_at = int(at), detail = detail})
end

-- Takes a dead letter away; returns it, or nil when there is none of that entry id.
local function take_dead_letter(entry_id)
  local entry = redis.call('XRANGE', key.dead(), entry_id, entry_id)[1]
  if not entry then return nil end
  local letter = {}
  for i = 1, #entry[2], 2 do letter[entry[2][i]] = entry[2][i + 1] end
  redis.call('XDEL', key.dead(), entry_id)
  redis.call('ZREM', key.buried(letter.queue or ''), entry_id)
  return letter
end

local function order_cancel(id, record)
  local orders = key.orders(record.worker)
  redis.call('XADD', orders, 'MAXLEN', '~', MAX_ORDERS, '*', 'order', 'cancel', 'id', id)
  redis.call('EXPIRE', orders, HOUR_S)
end

local function add_dead_letter(id, record, reason)
  if redis.call('XLEN', key.dead()) >= MAX_DEAD_LETTERS then
    take_dead_letter(redis.call('XRANGE', key.dead(), '-', '+', 'COUNT', 1)[1][1])
  end
  local entry_id = redis.call('XADD', key.dead(), '*', 'id', id,
    'queue', record.queue, 'kind', record.kind, 'band', record.band, 'run_id', record.run_id,
    'reason', reason, 'payload', record.payload or '')
  redis.call('ZADD', key.buried(record.queue), now_ms(), entry_id)
  count('dead', record)
end

-- Puts a message back into its queue. max_deliveries 0: this delivery does not count.
local function give_back(id, record, max_deliveries, reason, at, ttl_s)
  if max_deliveries > 0 and tonumber(record.deliveries) >= max_deliveries then
    add_dead_letter(id, record, reason)
    conclude(id, record, 'refused', at, cjson.encode({reason = reason, dead = true}), ttl_s)
    return 'refused'
  end
  local fields = {}
  if max_deliveries == 0 then fields.deliveries = int(math.max(0, record.deliveries - 1)) end
  move(id, record, 'queued', at, fields)
  if max_deliveries > 0 then
    count('redelivered', record)
    note_recent('redelivered', id, record, at)
  end
  enqueue(id, record)
  return 'queued'
end

-- Takes a message from a worker that does not hold it any more: what had not begun is handed out
-- again, what had begun is lost.
local function take_from(id, record, max_deliveries, reason, detail, at, ttl_s)
  if record.state == 'claimed' then
    give_back(id, record, max_deliveries, reason, at, ttl_s)
    return 'queued'
  end
  lose(id, record, at, detail, ttl_s)
  return 'lost'
end

-- What a worker's last renewal left behind, which no later one leaves again: a number, and a stamp for
-- a server that forgot the number. Workers of older releases leave the stamp alone.
local function renewal_of(worker)
  local last = redis.pcall('HMGET', key.worker(worker), 'renewal', 'renewed_at')
  if last.err then return '' end
  return (last[1] or '') .. '@' .. (last[2] or '')
end
