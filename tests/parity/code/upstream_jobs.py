"""The jobs that dagster-celery's own tests execute, by their behaviour."""

import os
import sys

import dagster as dg

from dagster_taskiq_kit.celery_compat import celery_executor


@dg.op
def simple() -> int:
    return 1


@dg.op
def add_one(number: int) -> int:
    return number + 1


@dg.op(out={"value_one": dg.Out(), "value_two": dg.Out()})
def emit_values():
    yield dg.Output(1, "value_one")
    yield dg.Output(2, "value_two")


@dg.op
def subtract(first: int, second: int) -> int:
    return first - second


@dg.op(out={name: dg.Out(is_required=False) for name in ("out_1", "out_2", "out_3")})
def foo():
    yield dg.Output(1, "out_1")


@dg.op
def takes(number: int) -> int:
    return number


@dg.op
def fails() -> None:
    raise ValueError("argjhgjh")


@dg.op
def should_never_execute(_number) -> None:
    raise AssertionError("It must be skipped.")


@dg.op
def retried(context: dg.OpExecutionContext) -> None:
    raise dg.RetryRequested(max_retries=1, seconds_to_wait=0)


@dg.op(tags={"dagster-k8s/resource_requirements": '{"requests": {"cpu": "250m"}}'})
def with_resources_of_k8s() -> int:
    return 1


@dg.op
def crashy_op() -> None:
    os._exit(1)


@dg.op
def exity_op() -> None:
    sys.exit(1)


@dg.job(executor_def=celery_executor)
def test_job() -> None:
    simple()


@dg.job(executor_def=celery_executor)
def test_serial_job() -> None:
    add_one(simple())


@dg.job(executor_def=celery_executor)
def test_diamond_job() -> None:
    one, two = emit_values()
    subtract(add_one(one), add_one.alias("renamed")(two))


@dg.job(executor_def=celery_executor)
def test_parallel_job() -> None:
    number = simple()
    for place in range(10):
        add_one.alias(f"add_one_{place}")(number)


@dg.graph
def add_two(number):
    return add_one(add_one.alias("again")(number))


@dg.graph
def add_four(number):
    return add_two(add_two.alias("again")(number))


@dg.graph
def add_eight(number):
    return add_four(add_four.alias("again")(number))


@dg.job(executor_def=celery_executor)
def composite_job() -> None:
    add_eight(add_four(add_two(add_one(simple()))))


@dg.job(executor_def=celery_executor)
def test_optional_outputs() -> None:
    first, second, third = foo()
    takes(first)
    takes.alias("second")(second)
    takes.alias("third")(third)


@dg.job(executor_def=celery_executor)
def test_fails() -> None:
    should_never_execute(fails())


@dg.job(executor_def=celery_executor)
def test_retries() -> None:
    retried()


@dg.job(executor_def=celery_executor)
def test_resources_limit() -> None:
    with_resources_of_k8s()


@dg.job(executor_def=celery_executor)
def crashy_job() -> None:
    crashy_op()


@dg.job(executor_def=celery_executor)
def exity_job() -> None:
    exity_op()


defs = dg.Definitions(
    jobs=[
        test_job, test_serial_job, test_diamond_job, test_parallel_job, composite_job,
        test_optional_outputs, test_fails, test_retries, test_resources_limit, crashy_job,
        exity_job,
    ]
)  # fmt: skip
