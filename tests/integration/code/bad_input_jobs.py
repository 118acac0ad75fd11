"""A job that is fine, and jobs with a tag that can never work."""

import dagster as dg

from dagster_taskiq_kit import taskiq_executor


@dg.op
def one() -> int:
    return 1


@dg.op(tags={"dagster-taskiq/queue": "a b"})
def in_no_queue() -> int:
    return 1


@dg.op(tags={"dagster-taskiq/priority": "high"})
def of_no_priority() -> int:
    return 1


@dg.job
def fine():
    one()


@dg.job
def bad_queue():
    in_no_queue()


@dg.job
def bad_priority():
    of_no_priority()


defs = dg.Definitions(jobs=[fine, bad_queue, bad_priority], executor=taskiq_executor)
