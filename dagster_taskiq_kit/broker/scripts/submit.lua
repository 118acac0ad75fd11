-- Creates the record of a message and queues its id, if there is no record of that id yet.
-- ARGV: task_id, kind, queue, band, run_id ('' for a user's task), payload, outcome_ttl_s,
--   id of the lost message that this one takes the place of, or '', schema of the message
-- Returns: {1, state} when created, {0, state} when the record already stood there, or
--   {-1, worker id, ...}: registered workers that cannot read this schema, which is not written yet.
-- Atomic because a record without a stream entry would never run, and an entry without a record
-- would be claimed as nothing. A submit for a cancelled run makes a record that is cancelled at once,
-- so that the orchestrator hears of it like of any other end. A newer schema is begun only when no
-- worker lives that could claim what it cannot read; from then on none of those claims anything.
local id, kind, queue, band, run_id, payload, ttl_s, superseded_id, schema = unpack(ARGV)
schema = tonumber(schema)
local known = redis.pcall('HGET', key.record(id), 'state')
if type(known) == 'string' and LEGAL[known] then return {0, known} end

local at = now_ms()
if (finite(redis.call('GET', key.schema())) or 0) < schema then
  local older = {-1}
  -- Who is registered counts as alive: a clock does not say that it is not, the rescue does.
  for _, worker in ipairs(redis.call('ZRANGE', key.workers(), 0, -1)) do
    local card = redis.call('HGET', key.worker(worker), 'card')
    if card and (finite(decoded(card).schema) or 1) < schema then older[#older + 1] = worker end
  end
  if #older > 1 then return older end
  redis.call('SET', key.schema(), schema)
end
redis.call('SET', key.born(), int(at), 'NX')
local superseded = superseded_id ~= '' and read(superseded_id)
if superseded and superseded.state == 'lost' then
  conclude(superseded_id, superseded, 'crashed', at, superseded.detail, ttl_s)
end
local moved_to = run_id ~= '' and redis.call('GET', key.run_band(run_id))
if moved_to and is_band(moved_to) then band = moved_to end
local record = {
  kind = kind, queue = queue, band = band, run_id = run_id, state = 'queued',
  payload = payload, queued_at = int(at), deliveries = '0',
}
create(id, record)
count('submitted', record)
enqueue(id, record)
if run_id ~= '' and redis.call('EXISTS', key.cancel(run_id)) == 1 then
  record.entry = redis.call('HGET', key.record(id), 'entry')
  conclude(id, record, 'cancelled', at, '{}', ttl_s)
end
return {1, record.state}
