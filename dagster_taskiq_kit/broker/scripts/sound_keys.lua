-- Before the key functions of every script: a key that somebody else has given another type is set
-- aside for a day, under its name with ':aside', and what the kit keeps there begins anew.
local SOUND, ASIDE_S = {}, 86400

local function sound(name, wanted)
  if SOUND[name] == nil then
    local found = redis.call('TYPE', name).ok
    SOUND[name] = found == 'none' or found == wanted
    if not SOUND[name] then
      -- Who may only read reads it as empty.
      redis.pcall('RENAME', name, name .. ':aside')
      SOUND[name] = redis.call('EXISTS', name) == 0
      if SOUND[name] then redis.call('EXPIRE', name .. ':aside', ASIDE_S) end
    end
  end
  return SOUND[name] and name or name .. ':none'
end
