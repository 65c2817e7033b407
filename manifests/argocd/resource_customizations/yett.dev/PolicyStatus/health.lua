-- Health of the details of a policy.  Its own generation grows with every version of the policy.
local health = { status = "Progressing", message = "Waiting for yett's operator" }
local status = obj.status
if status == nil or status.conditions == nil or status.observedGeneration ~= obj.metadata.generation then
  return health
end

local conditions = {}
for _, condition in ipairs(status.conditions) do
  if condition.observedGeneration == nil or condition.observedGeneration == obj.metadata.generation then
    conditions[condition.type] = condition
  end
end
local accepted, stalled, ready = conditions.Accepted, conditions.Stalled, conditions.Ready

if stalled ~= nil and stalled.status == "True" then
  health.status, health.message = "Degraded", stalled.message
elseif accepted ~= nil and accepted.status == "False" then
  health.status, health.message = "Degraded", accepted.message
elseif ready ~= nil and ready.status == "True" then
  health.status, health.message = "Healthy", ready.message
elseif ready ~= nil and ready.status == "False" and ready.reason ~= "Reconciling" then
  health.status, health.message = "Degraded", ready.message
elseif ready ~= nil then
  health.message = ready.message
end
return health
