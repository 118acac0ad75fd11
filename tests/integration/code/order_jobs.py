"""Steps with priorities 0..10 in a queue of their own, and ten that share one."""

import dagster as dg
from ledger import note, wait_at_gate

from dagster_taskiq_kit import taskiq_executor

#: A run submits the more urgent first: the one that waits longest is of another run.
PRIORITIES = [number % 11 for number in range(1, 20)]


def tagged(name: str, **tags: str) -> dg.OpDefinition:
    @dg.op(name=name, tags={f"dagster-taskiq/{tag}": value for tag, value in tags.items()})
    def notes(context: dg.OpExecutionContext) -> None:
        note(context)

    return notes


@dg.job
def one_of_the_lowest():
    tagged("step_00", queue="ordered", priority="0")()


@dg.job
def nineteen_priorities():
    for number, priority in enumerate(PRIORITIES, 1):
        tagged(f"step_{number:02}", queue="ordered", priority=str(priority))()


@dg.op(tags={"dagster-taskiq/queue": "shared"})
def keeps_its_worker_busy(context: dg.OpExecutionContext) -> None:
    note(context)
    wait_at_gate("free")


@dg.job
def one_that_waits():
    keeps_its_worker_busy()


@dg.job
def ten_that_share():
    for number in range(10):
        tagged(f"shares_{number}", queue="shared")()


defs = dg.Definitions(
    jobs=[one_of_the_lowest, nineteen_priorities, one_that_waits, ten_that_share],
    executor=taskiq_executor,
)
