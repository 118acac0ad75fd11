-- Puts a dead letter back into its queue, as if it had never been handed out.
-- ARGV: entry id of the dead letter
-- Returns: 'queued', 'none' (no such dead letter), or 'alive' (a message of that id is not ended).
-- Atomic because two operators may ask for the same letter.
local entry = redis.call('XRANGE', key.dead(), ARGV[1], ARGV[1])[1]
if not entry then return 'none' end
local id = entry[2][2]
local known = redis.call('HMGET', key.record(id), 'state', 'kind')
local state, kind = known[1], known[2]
-- A lost run may still be resumed; a step or a task that was lost has ended.
if state == 'queued' or state == 'claimed' or state == 'running' or (state == 'lost' and kind == 'run') then
  return 'alive'
end
local letter = unbury(ARGV[1])
local record = {
  kind = letter.kind, queue = letter.queue, band = letter.band, run_id = letter.run_id,
  state = 'queued', payload = letter.payload, queued_at = int(now_ms()), deliveries = '0',
}
create(letter.id, record)
count('submitted', record)
enqueue(letter.id, record)
return 'queued'
