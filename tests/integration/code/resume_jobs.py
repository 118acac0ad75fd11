"""Runs that are handed over in the middle: each job stands still at a gate until it was."""

import dagster as dg
from ledger import note, wait_at_gate

from dagster_taskiq_kit import taskiq_executor


@dg.op
def before(context: dg.OpExecutionContext) -> int:
    note(context)
    return 1


@dg.op
def at_gate(context: dg.OpExecutionContext, number: int) -> int:
    note(context)
    wait_at_gate(context.run_id)
    return number + 1


@dg.op
def after(context: dg.OpExecutionContext, number: int) -> int:
    note(context)
    return number + 1


@dg.op(out={"taken": dg.Out(int, is_required=False), "left_out": dg.Out(int, is_required=False)})
def takes_one_way(context: dg.OpExecutionContext):
    note(context)
    yield dg.Output(1, "taken")


@dg.op
def never_runs(context: dg.OpExecutionContext, number: int) -> int:
    note(context)
    return number


@dg.job
def skipped_branch():
    taken, left_out = takes_one_way()
    after.alias("behind_the_skipped")(never_runs(left_out))
    after(at_gate(taken))


@dg.op(retry_policy=dg.RetryPolicy(max_retries=1, delay=5))
def fails_once(context: dg.OpExecutionContext) -> int:
    note(context)
    if context.retry_number == 0:
        raise ValueError("the first time")
    return 1


@dg.job
def delayed_retry():
    after(fails_once())


@dg.op(pool="one_at_a_time")
def in_pool(context: dg.OpExecutionContext) -> int:
    note(context)
    wait_at_gate(context.run_id)
    return 1


@dg.op
def sum_up(context: dg.OpExecutionContext, numbers: list[int]) -> int:
    note(context)
    return sum(numbers)


@dg.job
def full_pool():
    sum_up([in_pool.alias(f"in_pool_{number}")() for number in range(3)])


@dg.job
def running_elsewhere():
    after(at_gate(before()))


@dg.job
def queued_steps():
    one = before()
    sum_up([at_gate.alias(f"at_gate_{number}")(one) for number in range(6)])


defs = dg.Definitions(
    jobs=[skipped_branch, delayed_retry, full_pool, running_elsewhere, queued_steps],
    executor=taskiq_executor,
)
