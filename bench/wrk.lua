-- Requests as they are in the file that WRK_REQUESTS names: a line with the length, then so many bytes.
local all = {}
local file = assert(io.open(os.getenv("WRK_REQUESTS"), "rb"))
while true do
   local length = file:read("*l")
   if not length then break end
   all[#all + 1] = file:read(tonumber(length))
end
file:close()

if #all == 1 then
   -- wrk copies it into place once, not for every request
   wrk.format = function() return all[1] end
else
   local at = 0
   request = function()
      at = at % #all + 1
      return all[at]
   end
end

done = function(summary, latency, requests)
   local e = summary.errors
   io.write(string.format(
      '\n{"requests": %d, "us": %d, "connect": %d, "read": %d, "write": %d, "timeout": %d, "status": %d, "p50": %.1f, "p90": %.1f, "p99": %.1f}\n',
      summary.requests, summary.duration, e.connect, e.read, e.write, e.timeout, e.status,
      latency:percentile(50), latency:percentile(90), latency:percentile(99)))
end
