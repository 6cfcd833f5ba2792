-- Replays the requests of a file, one after the other and from the start again.
--
-- The file holds finished requests, each behind a line with its length in bytes:
-- putting them together here would take the time that wrk needs to keep up.
-- Called as: wrk ... -s post.lua URL -- FILE

local requests = {}
local next_request = 0

function init(args)
   local file = assert(io.open(args[1], "rb"))
   for length in function() return file:read("*l") end do
      requests[#requests + 1] = file:read(tonumber(length))
   end
   file:close()
end

function request()
   next_request = next_request % #requests + 1
   return requests[next_request]
end

-- One line that bench/load.py reads. "refused" is every status over 399; there
-- are no redirects here, so all others are 2xx.
function done(summary, latency)
   local errors = summary.errors
   io.write(string.format(
      "bench answers=%d refused=%d failed=%d duration_us=%d p50_us=%d p99_us=%d\n",
      summary.requests, errors.status,
      errors.connect + errors.read + errors.write + errors.timeout,
      summary.duration, latency:percentile(50), latency:percentile(99)))
end
