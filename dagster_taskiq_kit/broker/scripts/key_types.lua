-- Before the key functions of every script: a key that somebody else has given another type is set
-- aside for a day, under its name with ':aside', and what the kit keeps there begins anew.
local IS_OF_TYPE, ASIDE_S = {}, 86400

local function of_type(name, wanted)
  if IS_OF_TYPE[name] == nil then
    local found = redis.call('TYPE', name).ok
    IS_OF_TYPE[name] = found == 'none' or found == wanted
    if not IS_OF_TYPE[name] then
      -- Who may only read reads it as empty.
      redis.pcall('RENAME', name, name .. ':aside')
      IS_OF_TYPE[name] = redis.call('EXISTS', name) == 0
      if IS_OF_TYPE[name] then redis.call('EXPIRE', name .. ':aside', ASIDE_S) end
    end
  end
  return IS_OF_TYPE[name] and name or name .. ':none'
end
