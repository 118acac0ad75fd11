-- Deletes dead letters for good.
-- ARGV: entry ids
-- Returns: how many there were.
-- Atomic because the count of a queue's dead letters must be true at every moment.
local purged = 0
for _, entry_id in ipairs(ARGV) do
  if take_dead_letter(entry_id) then purged = purged + 1 end
end
return purged
