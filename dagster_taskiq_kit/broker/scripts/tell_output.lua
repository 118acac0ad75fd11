-- Rings the bell of a running step that goes on: it wrote an output.
-- ARGV: task_id, token
-- Returns: 'ok', or 'revoked' (not yours any more).
-- Atomic because a step that is somebody else's now has nothing to tell.
local id, token = unpack(ARGV)
local record = read(id)
if not record or record.owner ~= token or record.state ~= 'running' then return 'revoked' end
ring(id, record, 'running', '{}')
return 'ok'
