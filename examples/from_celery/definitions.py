"""A project that ran on dagster-celery: short jobs in one queue, long ones in another.

What changed is the import line, and nothing below it. It was:

    from dagster_celery import celery_executor
"""

import time

import dagster as dg

from dagster_taskiq_kit.celery_compat import celery_executor


@dg.op
def numbers() -> list[int]:
    return [3, 1, 2]


@dg.op(tags={"dagster-celery/priority": "9"})
def sorted_numbers(numbers: list[int]) -> list[int]:
    return sorted(numbers)


@dg.op(tags={"dagster-celery/queue": "long-queue"})
def total(numbers: list[int]) -> int:
    return sum(numbers)


@dg.op(out=dg.Out(is_required=False))
def perhaps(numbers: list[int]):
    if len(numbers) > 10:
        yield dg.Output(numbers[0])


@dg.op
def after_perhaps(_number: int) -> None:
    raise AssertionError("It is skipped.")


@dg.job(executor_def=celery_executor)
def short_job() -> None:
    ordered = sorted_numbers(numbers())
    total(ordered)
    after_perhaps(perhaps(ordered))


@dg.op(tags={"dagster-celery/queue": "long-queue"})
def fails_in_long_queue(numbers: list[int]) -> None:
    raise ValueError(f"{numbers[0]} is too much")


@dg.job(executor_def=celery_executor)
def failing_job() -> None:
    fails_in_long_queue(numbers())


@dg.op
def takes_long(numbers: list[int]) -> int:
    time.sleep(2)
    return max(numbers)


# dagster-celery's launcher and executor do not work together: what is launched runs in one process.
@dg.job(executor_def=dg.in_process_executor, tags={"dagster-celery/queue": "long-queue"})
def long_job() -> None:
    takes_long(numbers())


defs = dg.Definitions(jobs=[short_job, failing_job, long_job])
