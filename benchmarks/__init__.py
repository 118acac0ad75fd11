"""The comparison of the kit with Dagster's own executors and dagster-celery: ``make bench``.

Invariant: every contender does the same work on the same servers in the same run, in turns; only
ratios are compared with the targets, because milliseconds do not travel to other machines.
"""
