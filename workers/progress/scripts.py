"""The scripts by which the channel's numbers are written. Each is atomic; the keys are in
``workers.progress``.
"""

# KEYS hash, steps, events; ARGV position, table, rows, weight, worker,
# stage, expiry, length of the stream. Returns 0 where the hash is missing.
COUNT = """
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
local now = redis.call('TIME')
local seconds = now[1] .. '.' .. string.format('%06d', now[2])
if redis.call('SETBIT', KEYS[2], ARGV[1], 1) == 0 then
    if tonumber(ARGV[3]) > 0 then redis.call('HINCRBY', KEYS[1], 'done:' .. ARGV[2], ARGV[3]) end
    redis.call('HINCRBYFLOAT', KEYS[1], 'done_weight', ARGV[4])
    redis.call('HINCRBY', KEYS[1], 'left:' .. ARGV[6], -1)
    redis.call('HINCRBY', KEYS[1], 'rows:' .. ARGV[5], ARGV[3])
    redis.call('HINCRBY', KEYS[1], 'steps:' .. ARGV[5], 1)
    redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[8], '*', 'event', 'step', 'stage', ARGV[6],
               'table', ARGV[2], 'rows', ARGV[3], 'worker', ARGV[5])
end
redis.call('HSET', KEYS[1], 'updated', seconds, 'seen:' .. ARGV[5], seconds)
for _, key in ipairs(KEYS) do redis.call('EXPIRE', key, ARGV[7]) end
return 1
"""

# KEYS hash, steps, events, latest; ARGV run, expiry, replace (0 or 1), seconds since the run began,
# seconds that it took (empty while it is in progress), bitmap, number of facts, field, value, …:
# the facts first, then what is counted.
# Builds the hash from the ledger: where it is missing, or, with replace, in any case. Steps that
# were counted since the ledger was read must stay so: then the channel's own counts are further
# than the ledger's were, and belong to its bitmap. Seconds are of the ledger's clock, and the times
# that are made of them of Redis's: no two clocks are compared.
BUILD = """
local known = redis.call('EXISTS', KEYS[1]) == 1
if known and ARGV[3] == '0' then return 0 end
local function covers(fresh, counted)
    for i = 1, #counted do
        local has = string.byte(fresh, i) or 0
        if bit.bor(has, string.byte(counted, i)) ~= has then return false end
    end
    return true
end
local now = redis.call('TIME')
local seconds = now[1] + now[2] / 1e6
local before = redis.call('HGET', KEYS[1], 'state')
local last = #ARGV
if known and not covers(ARGV[6], redis.call('GET', KEYS[2]) or '') then
    last = 7 + 2 * ARGV[7]
else
    redis.call('SET', KEYS[2], ARGV[6])
end
for i = 8, last, 2 do redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
local began = seconds - ARGV[4]
redis.call('HSET', KEYS[1], 'updated', string.format('%.6f', seconds),
           'began', string.format('%.6f', began))
if ARGV[5] == '' then
    redis.call('HDEL', KEYS[1], 'ended')
else
    redis.call('HSET', KEYS[1], 'ended', string.format('%.6f', began + ARGV[5]))
end
local state = redis.call('HGET', KEYS[1], 'state')
if state ~= before then redis.call('XADD', KEYS[3], '*', 'event', 'state', 'state', state) end
redis.call('SET', KEYS[4], ARGV[1], 'EX', ARGV[2])
for i = 1, 3 do redis.call('EXPIRE', KEYS[i], ARGV[2]) end
return 1
"""

# KEYS hash; ARGV worker, bytes that are here, bytes in all. A fetch that ended leaves nothing.
FETCH = """
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
local field = 'fetch:' .. ARGV[1]
if ARGV[2] == ARGV[3] then return redis.call('HDEL', KEYS[1], field) end
local now = redis.call('TIME')
redis.call('HSET', KEYS[1], field, ARGV[2] .. ' ' .. ARGV[3] .. ' ' .. now[1])
return 1
"""
