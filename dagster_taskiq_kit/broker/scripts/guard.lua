-- Binds the namespace to one Dagster instance and one schema, at the first use; checks it later.
-- ARGV: instance id, schema version
-- Returns: {instance id that owns the namespace, schema version it is written in}
-- Atomic because two instances may arrive at once, and exactly one must win.
redis.call('SET', key.instance(), ARGV[1], 'NX')
redis.call('SET', key.born(), int(now_ms()), 'NX')
if not finite(redis.call('GET', key.schema())) then redis.call('SET', key.schema(), ARGV[2]) end
return {redis.call('GET', key.instance()), redis.call('GET', key.schema())}
