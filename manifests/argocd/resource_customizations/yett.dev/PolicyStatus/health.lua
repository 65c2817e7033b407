-- Health of the details of a policy.  Its observedGeneration is the policy's, not its own.
local health = { status = "Progressing", message = "Waiting for yett's operator" }
if obj.status == nil or obj.status.conditions == nil then
  return health
end

local conditions = {}
for _, condition in ipairs(obj.status.conditions) do
  conditions[condition.type] = condition
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
