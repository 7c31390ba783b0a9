-- Health of every kind of the group tailnet.dev. The CRDs are kstatus-conformant: they are read by
-- Ready, Reconciling, Stalled and observedGeneration alone.
-- No string and no math library: Argo CD does not load them for scripts of argocd-cm.
-- Objects that are being deleted do not come here: Argo CD calls them Progressing by itself.

-- Reasons of Ready=False that last until a person permits what is held.
local waits_for_a_person = {
  AwaitingApproval = true,
  DisruptionHeld = true,
  IdentityChanged = true,
  LimitHeld = true,
  Superseded = true,
}

local function health(status, message)
  return { status = status, message = message }
end

if obj.spec ~= nil and obj.spec.suspend == true then
  return health("Suspended", "spec.suspend is true: nothing is sent")
end

local status = obj.status
if status == nil or status.observedGeneration ~= obj.metadata.generation then
  return health("Progressing", "The controller has not looked at this generation yet")
end

local conditions = {}
for _, condition in ipairs(status.conditions or {}) do
  conditions[condition.type] = condition
end

local ready = conditions.Ready
if ready == nil then
  return health("Progressing", "The controller has not said yet whether it is ready")
end

local message = ready.reason .. ": " .. ready.message
if ready.status == "True" then
  return health("Healthy", message)
end
if conditions.Stalled ~= nil and conditions.Stalled.status == "True" then
  return health("Degraded", message)
end
if waits_for_a_person[ready.reason] then
  return health("Suspended", message)
end
return health("Progressing", message)
