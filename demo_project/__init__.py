"""The demo: how late flights out of New York left in 2013, measured month by month.

Nothing here imports DuckDB or matplotlib until a step needs them: both may leave threads behind,
and a worker forks its steps from a process that has imported this package.
"""
