-- For wrk: sends the prepared bodies in turn, and writes what was measured as one line of JSON.
-- Arguments: file of bodies (one per line), path, then header lines ("name: value").
local prepared, at = {}, 0

function init(args)
  local headers = {["Content-Type"] = "application/json"}
  for i = 3, #args do
    local name, value = args[i]:match("^([^:]+): (.*)$")
    headers[name] = value
  end
  for body in io.lines(args[1]) do
    prepared[#prepared + 1] = wrk.format("POST", args[2], headers, body)
  end
end

function request()
  at = at % #prepared + 1
  return prepared[at]
end

function done(summary, latency)
  local e = summary.errors
  io.write(string.format(
    '{"requests":%d,"seconds":%.6f,"p50_us":%d,"p99_us":%d,"p999_us":%d,"max_us":%d,"status":%d,"broken":%d}\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50), latency:percentile(99),
    latency:percentile(99.9), latency.max, e.status, e.connect + e.read + e.write + e.timeout))
end
