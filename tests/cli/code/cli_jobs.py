"""Jobs for the commands to look at: one ends at once, one waits until it is let go."""

import os
import time
from pathlib import Path

import dagster as dg

from dagster_taskiq_kit import taskiq_executor


@dg.op
def one() -> int:
    return 1


@dg.job
def quick():
    one()


@dg.op
def waits_at_the_gate() -> None:
    while not Path(os.environ["GATE"]).exists():
        time.sleep(0.05)


@dg.job
def held():
    waits_at_the_gate()


defs = dg.Definitions(jobs=[quick, held], executor=taskiq_executor)
