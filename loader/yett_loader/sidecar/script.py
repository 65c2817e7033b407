"""What Envoy's Lua filter does with a request that goes to the server: the changes of every rule that allows it.

Which rules those are was found out on the headers as sent (`changes`).  All new values are worked
out, and only then is anything written; whatever goes wrong on the way denies.
"""

SCRIPT = """
local function secret_of(handle, key)
  local value = handle:streamInfo():filterState():get(key)
  if type(value) ~= "string" or value == "" then error("a secret has not come yet") end
  return value
end

local function values_of(headers, name)
  local values = {}
  for i = 0, headers:getNumValues(name) - 1 do table.insert(values, headers:getAtIndex(name, i)) end
  return values
end

local function contains(values, wanted)
  -- Lua compares texts by identity: how long it takes says nothing of where they differ.
  for _, value in ipairs(values) do if value == wanted then return true end end
  return false
end

local function holds(found, conditions)
  for _, key in ipairs(conditions) do
    local negated = key:sub(1, 1) == "!"
    if (found[negated and key:sub(2) or key] == "\\1") == negated then return false end
  end
  return true
end

local function collect(handle, found, rules)
  local wanted, logged = {}, {}
  for _, rule in ipairs(rules) do
    if holds(found, rule["when"]) then
      for _, change in ipairs(rule["changes"]) do
        local name, op, value = change["name"], change["op"], change["value"]
        if change["secret"] ~= nil then value = secret_of(handle, change["secret"]) end
        if op == "log" then
          table.insert(logged, {name, value})
        else
          wanted[name] = wanted[name] or {delete = {}, replace = {}, add = {}}
          table.insert(wanted[name][op], value)
        end
      end
    end
  end
  return wanted, logged
end

local function after(before, wanted)
  local values = {}
  for _, value in ipairs(before) do
    local stays = true
    for _, kept in ipairs(wanted.delete) do stays = stays and value == kept end
    if stays then table.insert(values, value) end
  end
  if #wanted.replace > 0 then values = {wanted.replace[#wanted.replace]} end
  for _, value in ipairs(wanted.add) do
    if not contains(values, value) then table.insert(values, value) end
  end
  return values
end

local function mismatched(headers, logged)
  local names, seen = {}, {}
  for _, item in ipairs(logged) do
    local name, value = item[1], item[2]
    local values = values_of(headers, name)
    local fits = #values > 0
    if value ~= nil then fits = contains(values, value) end
    if not fits and not seen[name] then
      seen[name] = true
      table.insert(names, name)
    end
  end
  table.sort(names)
  return table.concat(names, ",")
end

local function change(handle, found, rules)
  local headers = handle:headers()
  local wanted, logged = collect(handle, found, rules)
  local result = {}
  for name, item in pairs(wanted) do result[name] = after(values_of(headers, name), item) end
  local names = mismatched(headers, logged)
  if names ~= "" then handle:streamInfo():dynamicMetadata():set("yett", "mismatched", names) end
  for name, values in pairs(result) do
    headers:remove(name)
    for _, value in ipairs(values) do headers:add(name, value) end
  end
end

local function twice(handle, names)
  for _, name in ipairs(names) do
    if handle:headers():getNumValues(name) > 1 then return true end
  end
  return false
end

function envoy_on_request(handle)
  local metadata = handle:streamInfo():dynamicMetadata()
  local found = metadata:get("yett") or {}
  -- What was found of the request must not get into the access records.
  for key, _ in pairs(found) do metadata:set("yett", key, false) end
  local unless = handle:metadata():get("unless")
  if unless == nil or twice(handle, unless) then return end
  if not pcall(change, handle, found, handle:virtualHost():metadata():get("rules")) then
    metadata:set("yett", "denied", "SIDECAR_DOWN")
    handle:respond({[":status"] = "403"}, "Access denied\\r\\n")
  end
end
"""
