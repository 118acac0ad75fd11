"""Jobs of dagster-celery's tests that are stopped, ordered, routed or broken, by their behaviour."""

import os
import time

import dagster as dg

from dagster_taskiq_kit.celery_compat import celery_executor

NUMBERS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]


@dg.op
def emits() -> int:
    return 1


@dg.op
def takes(number: int) -> int:
    return number + 1


@dg.job(executor_def=celery_executor)
def subset_job() -> None:
    takes(emits())


def sleeps_half_a_second(name: str, priority: int | None = None) -> dg.OpDefinition:
    tags = {} if priority is None else {"dagster-celery/priority": str(priority)}

    @dg.op(name=name, tags=tags)
    def sleeps() -> None:
        time.sleep(0.5)

    return sleeps


@dg.job(executor_def=celery_executor)
def interrupt_job() -> None:
    for number in range(50):
        sleeps_half_a_second(f"sleeps_{number}")()


@dg.job(executor_def=celery_executor)
def simple_priority_job() -> None:
    for priority, name in enumerate(NUMBERS):
        sleeps_half_a_second(name, priority)()


@dg.job(executor_def=dg.in_process_executor, tags={"dagster-celery/run_priority": "-3"})
def low_job() -> None:
    emits()


@dg.job(executor_def=dg.in_process_executor, tags={"dagster-celery/run_priority": "3"})
def hi_job() -> None:
    emits()


@dg.op(tags={"dagster-celery/queue": "fooqueue"})
def in_fooqueue(_number: int) -> None: ...


@dg.job(executor_def=celery_executor)
def multiqueue_job() -> None:
    in_fooqueue(emits())


@dg.resource
def broken(_context) -> None:
    raise RuntimeError("the engine is broken")


@dg.op(required_resource_keys={"broken"})
def needs_it() -> None: ...


@dg.job(executor_def=celery_executor, resource_defs={"broken": broken})
def engine_error() -> None:
    needs_it()
    takes(emits())


@dg.op
def leaves() -> None:
    os._exit(1)


@dg.job(executor_def=dg.in_process_executor)
def crashy_run_job() -> None:
    leaves()


@dg.op
def sleeps_for_ever() -> None:
    while True:
        time.sleep(0.1)


@dg.job(executor_def=dg.in_process_executor)
def sleepy_job() -> None:
    sleeps_for_ever()


@dg.op(retry_policy=dg.RetryPolicy(max_retries=1))
def fails_once(context: dg.OpExecutionContext) -> None:
    if context.retry_number == 0:
        raise RuntimeError("the first time")


@dg.job(executor_def=celery_executor)
def retried_job() -> None:
    fails_once()


@dg.job(executor_def=celery_executor)
def late_bad_tag_job() -> None:
    takes.tag({"dagster-celery/priority": "soon"})(emits())


@dg.job(executor_def=celery_executor)
def words_as_priority_job() -> None:
    emits.tag({"dagster/priority": "high", "dagster-celery/priority": "3"})()


defs = dg.Definitions(
    jobs=[
        subset_job, interrupt_job, simple_priority_job, low_job, hi_job, multiqueue_job,
        engine_error, crashy_run_job, sleepy_job, retried_job, late_bad_tag_job,
        words_as_priority_job,
    ]
)  # fmt: skip
