"""Diamonds of many steps, and a spy on how many records of the log each process reads."""

import os
from pathlib import Path

import dagster as dg
from ledger import note, wait_at_gate

from dagster_taskiq_kit import taskiq_executor

_read = dg.DagsterInstance.get_records_for_run


def _read_and_count(self, *arguments, **options):
    """Read as Dagster does, and write down who read how much."""
    page = _read(self, *arguments, **options)
    with (Path(os.environ["DAGSTER_HOME"]) / "reads").open("a") as reads:
        reads.write(f"{os.getpid()} {len(page.records)}\n")
    return page


dg.DagsterInstance.get_records_for_run = _read_and_count


@dg.op(out=dg.DynamicOut(int), config_schema={"width": int})
def fan_out(context: dg.OpExecutionContext):
    note(context)
    for number in range(context.op_config["width"]):
        yield dg.DynamicOutput(number, mapping_key=str(number))


@dg.op(config_schema={"open_below": int})
def passes(context: dg.OpExecutionContext, number: int) -> int:
    if number >= context.op_config["open_below"]:
        wait_at_gate("gate")
    note(context)
    return number


@dg.op
def add_up(context: dg.OpExecutionContext, numbers: list[int]) -> int:
    note(context)
    context.log.info("sum %d", sum(numbers))
    return sum(numbers)


def diamond(width: int, waiting: int = 0) -> dg.JobDefinition:
    """Return a job of 1 -> width -> 1 steps, of which the last ``waiting`` wait at the gate."""
    ops = {"fan_out": {"width": width}, "passes": {"open_below": width - waiting}}

    @dg.job(
        name=f"diamond_{width}",
        config={"ops": {name: {"config": config} for name, config in ops.items()}},
    )
    def made():
        add_up(fan_out().map(passes).collect())

    return made


defs = dg.Definitions(
    jobs=[diamond(40), diamond(90, waiting=10), diamond(250)], executor=taskiq_executor
)
