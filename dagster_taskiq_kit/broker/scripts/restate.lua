-- Writes again what a worker really executes and the server forgot in a crash of its own.
-- ARGV: task_id, token, worker_id, kind, queue, band, run_id, payload, deliveries, waited_ms,
--   token of a second claim by the same worker, or ''
-- Returns: 'ok', or 'revoked' (somebody else owns it, or it has ended here).
-- Atomic because whoever owns the message at this moment decides.
local id, token, worker, kind, queue, band, run_id, payload, deliveries, waited_ms, second = unpack(ARGV)
local record, at = read(id), now_ms()
if not record then
  record = {
    kind = kind, queue = queue, band = band, run_id = run_id, payload = payload, state = 'queued',
    queued_at = int(at - waited_ms), deliveries = int(deliveries - 1), entry = '0-0',
  }
  create(id, record)
end
if record.state == 'running' and record.owner == token then return 'ok' end
if record.state == 'queued' then
  move(id, record, 'claimed', at, {
    owner = token, worker = worker, claimed_at = int(at), deliveries = int(record.deliveries + 1),
  })
  redis.call('HDEL', key.record(id), 'entry')
end
if record.state == 'claimed' and second ~= '' and record.owner == second then
  record.owner = token
  redis.call('HSET', key.record(id), 'owner', token, 'deliveries', int(deliveries))
end
if record.state ~= 'claimed' or record.owner ~= token then return 'revoked' end
move(id, record, 'running', at, {began_at = int(at)})
return 'ok'
