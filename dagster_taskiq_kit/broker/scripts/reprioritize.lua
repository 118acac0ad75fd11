-- Moves what a run has queued, and what it will queue, to another band.
-- ARGV: run_id, band
-- Returns: how many queued messages were moved.
-- Atomic because a claim in the middle would hand out a message from the stream that it leaves. How
-- long a message waits is not forgotten: its record keeps when it was queued.
local run_id, band = unpack(ARGV)
redis.call('SET', key.run_band(run_id), band, 'EX', 30 * DAY_S)
local moved = 0
for _, id in ipairs(redis.call('SMEMBERS', key.run(run_id))) do
  local record = read(id)
  if record and record.state == 'queued' and record.band ~= band then
    leave(id, record)
    record.band = band
    redis.call('HSET', key.record(id), 'band', band)
    enqueue(id, record)
    moved = moved + 1
  end
end
return moved
