-- Elects one worker to do a duty in this round.
-- ARGV: duty, worker_id, round_ms
-- Returns: 1 for the elected, 0 for the others.
-- Atomic by SET NX; a script only so that all calls are made in one way.
return redis.call('SET', key.round(ARGV[1]), ARGV[2], 'PX', ARGV[3], 'NX') and 1 or 0
