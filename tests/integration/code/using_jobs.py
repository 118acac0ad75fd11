"""Steps that use a known amount of CPU and memory, and say how much by their own measure."""

import os
import resource
import signal
import subprocess
import sys

import dagster as dg

from dagster_taskiq_kit import taskiq_executor

MIB = 2**20
BURNS = "import time\nwhile time.process_time() < {seconds}: pass"


def own_cpu_s() -> float:
    return sum(
        each.ru_utime + each.ru_stime
        for each in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


def burn(seconds: float) -> None:
    until_s = own_cpu_s() + seconds
    while own_cpu_s() < until_s:
        sum(range(10_000))


@dg.op(out=dg.Out(dg.Nothing))
def burns(context: dg.OpExecutionContext):
    burn(1.5)
    context.log.info("own measure %s", own_cpu_s())


@dg.op(ins={"after": dg.In(dg.Nothing)}, out=dg.Out(dg.Nothing))
def does_nothing(): ...


@dg.op(ins={"after": dg.In(dg.Nothing)}, out=dg.Out(dg.Nothing))
def holds_memory():
    held = bytearray(300 * MIB)
    held[::4096] = b"x" * len(held[::4096])


@dg.op(ins={"after": dg.In(dg.Nothing)}, out=dg.Out(dg.Nothing))
def starts_a_program():
    subprocess.run([sys.executable, "-c", BURNS.format(seconds=1.0)], check=True)


@dg.op
def dies():
    burn(1.0)
    os.kill(os.getpid(), signal.SIGKILL)


@dg.op(retry_policy=dg.RetryPolicy(max_retries=1), out=dg.Out(dg.Nothing))
def fails_once(context: dg.OpExecutionContext):
    if context.retry_number == 0:
        raise RuntimeError("the first time")


@dg.job(executor_def=taskiq_executor)
def uses():
    starts_a_program(holds_memory(does_nothing(burns())))


@dg.job(executor_def=taskiq_executor, tags={"dagster-taskiq/isolation": "run"})
def shares():
    does_nothing(holds_memory(burns()))


@dg.job(executor_def=taskiq_executor)
def crashes():
    dies()


@dg.job(executor_def=taskiq_executor)
def retries():
    does_nothing(fails_once())


defs = dg.Definitions(jobs=[uses, shares, crashes, retries])
