"""What is launched, cancelled and killed to see how soon that is noticed.

Invariant: a body says when its worker's own work begins, by the clock that the log is written by.
"""

import os
import signal
import time

import dagster as dg

from dagster_taskiq_kit import taskiq_executor

#: What ``dies`` says before the time at which it will die.
DIES_AT = "dies at "
_BEFORE_S = 0.3


@dg.op
def nothing() -> None:
    pass


@dg.op
def waiting() -> None:
    time.sleep(600)


@dg.op
def dying(context: dg.OpExecutionContext) -> None:
    at_s = time.time() + _BEFORE_S
    context.log.info("%s%s", DIES_AT, at_s)
    while time.time() < at_s:
        time.sleep(0.001)
    os.kill(os.getpid(), signal.SIGKILL)


@dg.job(executor_def=taskiq_executor)
def one() -> None:
    nothing()


@dg.job(executor_def=dg.in_process_executor)
def one_in_process() -> None:
    nothing()


@dg.job(executor_def=taskiq_executor)
def waits() -> None:
    waiting()


@dg.job(executor_def=taskiq_executor)
def dies() -> None:
    dying()


defs = dg.Definitions(jobs=[one, one_in_process, waits, dies])
