"""Taskiq tasks of a user's own, and ops and assets that call them through the resource."""

import os
import signal
import time
from pathlib import Path

import dagster as dg
from taskiq import async_shared_broker

from dagster_taskiq_kit import TaskiqResource, taskiq_executor

GATE = Path(os.environ["GATE"])
NOTES = Path(os.environ["GATE"] + ".notes")


def note(line: str) -> None:
    with NOTES.open("a") as notes:
        notes.write(f"{line}\n")


class NotASquare(ValueError):
    """What a task raises."""


@async_shared_broker.task
def square(number: int) -> int:
    note(f"square {number} {os.getpid()}")
    return number * number


@async_shared_broker.task
async def square_later(number: int) -> dict:
    return {"square": number * number}


@async_shared_broker.task
def fails(number: int) -> int:
    raise NotASquare(f"{number} is not a square")


@async_shared_broker.task
def returns_no_json() -> object:
    return object()


@async_shared_broker.task
def dies() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


@async_shared_broker.task
def waits() -> None:
    note("waits")
    while not GATE.exists():
        time.sleep(0.05)
    note("went on")


@dg.op
def squares(context: dg.OpExecutionContext, taskiq: TaskiqResource) -> list[int]:
    found = list(taskiq.map(square, range(6), max_in_flight=2))
    context.log.info("squares: %s", found)
    return found


@dg.op
def waits_for_task(taskiq: TaskiqResource) -> None:
    taskiq.submit(waits).result()


@dg.job
def squaring() -> None:
    squares()


@dg.job
def waiting_for_task() -> None:
    waits_for_task()


@dg.sensor(minimum_interval_seconds=1, default_status=dg.DefaultSensorStatus.RUNNING)
def backlog_sensor(taskiq: TaskiqResource):
    return dg.SkipReason(f"{taskiq.snapshot().queue('default').backlog} wait.")


@dg.schedule(cron_schedule="* * * * *", job=squaring)
def when_idle(taskiq: TaskiqResource):
    waiting = sum(queue.backlog for queue in taskiq.queues())
    return dg.SkipReason(f"{waiting} wait.") if waiting else dg.RunRequest()


defs = dg.Definitions(
    jobs=[squaring, waiting_for_task],
    sensors=[backlog_sensor],
    schedules=[when_idle],
    resources={"taskiq": TaskiqResource()},
    executor=taskiq_executor,
)
