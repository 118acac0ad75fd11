"""Jobs whose every start and end can be counted, and the kit's health beside them."""

import os
import time
from pathlib import Path

import dagster as dg

from dagster_taskiq_kit import (
    QueueObjective,
    TaskiqSettings,
    build_taskiq_definitions,
    taskiq_executor,
)

GATE = Path(os.environ["GATE"])


@dg.op
def one() -> int:
    time.sleep(0.1)
    return 1


@dg.op
def two(number: int) -> int:
    return number + 1


@dg.op(tags={"dagster-taskiq/queue": "gpu"})
def three(number: int) -> int:
    return number + 1


@dg.op
def fails(number: int) -> None:
    raise ValueError(f"{number} is too much")


@dg.op(tags={"dagster-taskiq/queue": "gpu"})
def waits_on_gpu() -> None:
    while not GATE.exists():
        time.sleep(0.05)


@dg.job
def quick() -> None:
    three(two(one()))


@dg.job
def failing() -> None:
    fails(one())


@dg.job
def waiting_on_gpu() -> None:
    waits_on_gpu()


defs = dg.Definitions.merge(
    dg.Definitions(jobs=[quick, failing, waiting_on_gpu], executor=taskiq_executor),
    build_taskiq_definitions(
        TaskiqSettings.resolve({"queues": {"gpu": QueueObjective(slo_s=30)}}),
        minimum_interval_seconds=5,
    ),
)
