"""The work: what every contender executes.

Invariant: imported by every contender in its own environment, so it needs Dagster and the
contender's executor and nothing else. A step does nothing: what is measured is what a step costs.
"""

import importlib
import os
from typing import Any

import dagster as dg

#: Steps at once, for every contender that can choose.
SLOTS = 4
CHAIN_STEPS = 20
FAN_WIDTH = 100
WARM_UP_WIDTH = 8

EXECUTOR = "BENCHMARK_EXECUTOR"
#: Modules that the code imports as people's code does, comma-separated.
IMPORTS = "BENCHMARK_IMPORTS"
#: How the kit's worker serves it.
WARM = "BENCHMARK_WARM"
CELERY_URL = "BENCHMARK_CELERY_URL"


for _name in filter(None, os.environ.get(IMPORTS, "").split(",")):
    importlib.import_module(_name)


def _executor() -> dg.ExecutorDefinition:
    name = os.environ.get(EXECUTOR)
    if name == "taskiq":
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


def _fan_out(width: int) -> None:
    number = first()
    last([following.alias(f"following_{index}")(number) for index in range(width)])


@dg.job(executor_def=_executor())
def chain() -> None:
    number: Any = first()
    for index in range(1, CHAIN_STEPS):
        number = following.alias(f"following_{index}")(number)


@dg.job(executor_def=_executor())
def fan() -> None:
    _fan_out(FAN_WIDTH)


@dg.job(executor_def=_executor())
def warm_up() -> None:
    _fan_out(WARM_UP_WIDTH)


defs = dg.Definitions(jobs=[chain, fan, warm_up])
