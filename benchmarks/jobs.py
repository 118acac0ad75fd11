"""The work: what every contender executes.

Invariant: imported by every contender in its own environment, so it needs Dagster and the
contender's executor and nothing else. Unless its name says otherwise a step does nothing: what is
measured is what a step costs.
"""

import importlib
import os
import sys
import time
from collections.abc import Iterator
from typing import Any

import dagster as dg

#: Steps at once, for every contender that can choose.
SLOTS = 4
CHAIN_STEPS = 20
FAN_WIDTH = 100
FUSED_STEPS = 1_000
WIDE_WIDTH, WIDEST_WIDTH, DYNAMIC_WIDTH = 1_000, 5_000, 3_000
SLEEPS, SLEEP_S = 16, 1.0
LINES, MATERIALIZATIONS, METADATA_BYTES = 10_000, 2_000, 5_000_000
WARM_UP_WIDTH = 8

EXECUTOR = "BENCHMARK_EXECUTOR"
#: Modules that the code imports as people's code does, comma-separated.
IMPORTS = "BENCHMARK_IMPORTS"
#: How the kit's worker serves it.
WARM = "BENCHMARK_WARM"
#: Which jobs are measured, comma-separated. A large one that is not is small: a process that loads
#: this code for one step pays for all that it defines.
MEASURED = "BENCHMARK_MEASURED"
CELERY_URL = "BENCHMARK_CELERY_URL"
#: Name of the metadata by which a step tells how long its body took.
BODY = "body_s"

# Dagster walks a job along its chains by recursion; ours are longer than Python allows.
sys.setrecursionlimit(max(sys.getrecursionlimit(), 3 * FUSED_STEPS))

for _name in filter(None, os.environ.get(IMPORTS, "").split(",")):
    importlib.import_module(_name)


def _size(job: str, steps: int) -> int:
    return steps if job in os.environ.get(MEASURED, "").split(",") else 2


def _executor() -> dg.ExecutorDefinition:
    name = os.environ.get(EXECUTOR, "")
    if name.startswith("taskiq"):
        from dagster_taskiq_kit import taskiq_executor

        return taskiq_executor
    if name == "celery":
        from dagster_celery import celery_executor

        url = os.environ[CELERY_URL]
        return celery_executor.configured({"broker": url, "backend": url})
    if name == "multiprocess":
        return dg.multiprocess_executor.configured({"max_concurrent": SLOTS})
    return dg.in_process_executor


@dg.op
def first() -> int:
    return 1


@dg.op
def following(number: int) -> int:
    return number + 1


@dg.op
def last(numbers: list[int]) -> int:
    return sum(numbers)


@dg.op(out=dg.DynamicOut())
def numbers() -> Iterator[dg.DynamicOutput[int]]:
    """Known only at run time: how many steps follow."""
    for number in range(_size("dynamic", DYNAMIC_WIDTH)):
        yield dg.DynamicOutput(number, mapping_key=str(number))


@dg.op
def sleeping() -> None:
    time.sleep(SLEEP_S)


@dg.op
def says_lines(context: dg.OpExecutionContext) -> None:
    for number in range(LINES):
        context.log.info("line %s", number)


@dg.op
def materializes(context: dg.OpExecutionContext) -> None:
    for number in range(MATERIALIZATIONS):
        context.log_event(dg.AssetMaterialization("chatty", metadata={"number": number}))


@dg.op
def says_metadata(context: dg.OpExecutionContext) -> None:
    text = "x" * (METADATA_BYTES // 10)
    for _ in range(10):
        context.log_event(dg.AssetObservation("heavy", metadata={"text": text}))


def _fibonacci(number: int) -> int:
    return number if number < 2 else _fibonacci(number - 1) + _fibonacci(number - 2)


@dg.op(ins={"after": dg.In(dg.Nothing)}, config_schema={"number": int})
def fibonacci(context: dg.OpExecutionContext) -> Iterator[dg.Output[int]]:
    """What other engines are measured by: its body's own time is told beside the result."""
    began_s = time.perf_counter()
    result = _fibonacci(context.op_config["number"])
    yield dg.Output(result, metadata={BODY: time.perf_counter() - began_s})


def _fibonacci_chain(steps: int, number: int) -> None:
    after: Any = None
    for index in range(steps):
        step = fibonacci.configured({"number": number}, name=f"fibonacci_{number}_{index}")
        after = step() if after is None else step(after)


def _fan_out(width: int) -> None:
    number = first()
    last([following.alias(f"following_{index}")(number) for index in range(width)])


def _chain_of(steps: int) -> None:
    number: Any = first()
    for index in range(1, steps):
        number = following.alias(f"following_{index}")(number)


@dg.job(executor_def=_executor())
def chain() -> None:
    _chain_of(CHAIN_STEPS)


@dg.job(executor_def=_executor(), tags={"dagster-taskiq/isolation": "run"})
def fused() -> None:
    _chain_of(_size("fused", FUSED_STEPS))


@dg.job(executor_def=_executor())
def fan() -> None:
    _fan_out(FAN_WIDTH)


@dg.job(executor_def=_executor())
def wide() -> None:
    _fan_out(_size("wide", WIDE_WIDTH))


@dg.job(executor_def=_executor())
def widest() -> None:
    _fan_out(_size("widest", WIDEST_WIDTH))


@dg.job(executor_def=_executor())
def dynamic() -> None:
    last(numbers().map(following).collect())


@dg.job(executor_def=_executor())
def sleeps() -> None:
    for index in range(SLEEPS):
        sleeping.alias(f"sleeping_{index}")()


@dg.job(executor_def=_executor())
def lines() -> None:
    says_lines()


@dg.job(executor_def=_executor())
def materializations() -> None:
    materializes()


@dg.job(executor_def=_executor())
def metadata() -> None:
    says_metadata()


@dg.job(executor_def=_executor())
def fibonacci_10() -> None:
    _fibonacci_chain(10, 33)


@dg.job(executor_def=_executor())
def fibonacci_40() -> None:
    _fibonacci_chain(40, 10)


@dg.job(executor_def=_executor())
def warm_up() -> None:
    _fan_out(WARM_UP_WIDTH)


defs = dg.Definitions(
    jobs=[
        chain, fan, fused, wide, widest, dynamic, sleeps, lines, materializations, metadata,
        fibonacci_10, fibonacci_40, warm_up,
    ]
)  # fmt: skip
