-- Puts a dead letter back into its queue, as if it had never been handed out.
-- ARGV: entry id of the dead letter
-- Returns: 'queued', 'none' (no such dead letter), 'alive' (a message of that id is not ended), or
--   'unreadable' (it is no letter of ours, and stays where it is).
-- Atomic because two operators may ask for the same letter.
local entry = redis.call('XRANGE', key.dead(), ARGV[1], ARGV[1])[1]
if not entry then return 'none' end
local said = {}
for i = 1, #entry[2], 2 do said[entry[2][i]] = entry[2][i + 1] end
for _, name in ipairs({'id', 'kind', 'queue', 'band', 'run_id', 'payload'}) do
  if not said[name] then return 'unreadable' end
end
local known = read(said.id) or {}
local state, kind = known.state, known.kind
-- A lost run may still be resumed; a step or a task that was lost has ended.
if state == 'queued' or state == 'claimed' or state == 'running' or (state == 'lost' and kind == 'run') then
  return 'alive'
end
local letter = take_dead_letter(ARGV[1])
local record = {
  kind = letter.kind, queue = letter.queue, band = letter.band, run_id = letter.run_id,
  state = 'queued', payload = letter.payload, queued_at = int(now_ms()), deliveries = '0',
}
create(letter.id, record)
count('submitted', record)
enqueue(letter.id, record)
return 'queued'
