"""Jobs that a fleet test launches; what a worker is given with ``-f``."""

import os
import time

import dagster as dg

from dagster_taskiq_kit import taskiq_executor


@dg.op
def one() -> int:
    return 1


@dg.op
def add_one(number: int) -> int:
    return number + 1


@dg.job
def two_steps():
    add_one(one())


@dg.op
def sleeps_a_minute() -> None:
    time.sleep(60)


@dg.job
def sleeps():
    sleeps_a_minute()


@dg.op(retry_policy=dg.RetryPolicy(max_retries=1))
def leaves_without_a_word(context: dg.OpExecutionContext) -> None:
    if context.retry_number == 0:
        os._exit(3)


@dg.job
def crashes_once():
    leaves_without_a_word()


@dg.op(tags={"dagster-taskiq/priority": "high"})
def badly_tagged() -> None: ...


@dg.job
def bad_tag():
    badly_tagged()


@dg.job(resource_defs={"io_manager": dg.mem_io_manager})
def in_memory():
    add_one(one())


@dg.op
def sleeps_a_while() -> int:
    time.sleep(3)
    return 1


@dg.job(executor_def=dg.in_process_executor)
def in_process():
    add_one(sleeps_a_while())


@dg.job(executor_def=dg.multiprocess_executor)
def multiprocess():
    add_one(one())


jobs = [two_steps, sleeps, crashes_once, bad_tag, in_memory, in_process, multiprocess]
defs = dg.Definitions(jobs=jobs, executor=taskiq_executor)
