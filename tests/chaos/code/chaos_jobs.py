"""Jobs for the chaos tests: every body writes a ledger, and waits at a gate that the test opens."""

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import dagster as dg

from dagster_taskiq_kit import taskiq_executor

LEDGER = Path(os.environ["LEDGER"])


def write(context: dg.OpExecutionContext, what: str) -> None:
    line = {
        "run": context.run_id, "step": context.get_step_execution_context().step.key,
        "attempt": context.retry_number + 1, "pid": os.getpid(), "what": what,
        "at": time.clock_gettime(time.CLOCK_BOOTTIME),
    }  # fmt: skip
    handle = os.open(LEDGER, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(handle, json.dumps(line).encode() + b"\n")
    os.close(handle)


def pass_gate(context: dg.OpExecutionContext, name: str | None = None) -> None:
    """Write start, wait until the test makes the gate's file, write end."""
    write(context, "start")
    machine = os.environ.get("GATES")  # a worker may have gates of its own
    gate = LEDGER.parent / "gates" / "-".join(filter(None, [machine, name or context.op.name]))
    while not gate.exists():
        time.sleep(0.02)
    write(context, "end")


@dg.op
def first(context) -> int:
    pass_gate(context)
    return 1


@dg.op
def second(context, number: int) -> int:
    pass_gate(context)
    return number + 1


@dg.op(retry_policy=dg.RetryPolicy(max_retries=1))
def patient(context) -> int:
    pass_gate(context)
    return 1


@dg.op
def kills_its_worker(context) -> None:
    write(context, "start")
    # child <- fork server <- worker
    fork_server = os.getppid()
    status = Path(f"/proc/{fork_server}/status").read_text()
    worker = next(line.split()[1] for line in status.splitlines() if line.startswith("PPid:"))
    os.kill(int(worker), signal.SIGKILL)
    time.sleep(60)


@dg.job
def chain():
    second(first())


@dg.job
def one():
    first()


@dg.job
def retried():
    patient()


@dg.job(executor_def=taskiq_executor.configured({"worker_lost_retries": 1}, name="forgiving"))
def forgiving():
    first()


@dg.job(executor_def=taskiq_executor.configured({"worker_lost_retries": 2}, name="forgiving_2"))
def killer():
    kills_its_worker()


@dg.op
def third(context, number: int) -> int:
    pass_gate(context)
    return number


@dg.job
def other_chain():
    third(first())


@dg.op(tags={"dagster-taskiq/queue": "slow"}, ins={"after": dg.In(dg.Nothing)})
def on_slow(context) -> None:
    pass_gate(context)


@dg.job
def two_queues():
    on_slow(first())


@dg.job
def on_slow_only():
    on_slow()


@dg.op(out=dg.DynamicOut(int))
def many():
    for number in range(200):
        yield dg.DynamicOutput(number, mapping_key=f"n{number}")


@dg.op
def each_of_many(context, number: int) -> int:
    pass_gate(context, "wide")
    return number


@dg.job
def wide():
    many().map(each_of_many)


@dg.op
def segfaults(context) -> None:
    write(context, "start")
    print("about to touch what is not mine", file=sys.stderr, flush=True)
    ctypes.string_at(0)


@dg.op
def exits_3(context) -> None:
    write(context, "start")
    os._exit(3)


@dg.op
def eats_memory(context) -> None:
    write(context, "start")
    eaten = []
    while True:
        eaten.append(bytearray(8 * 1024 * 1024))
        time.sleep(0.02)


@dg.op(tags={"dagster-taskiq/timeout": "1"})
def too_slow(context) -> None:
    write(context, "start")
    time.sleep(120)


@dg.op
def leaves_a_grandchild(context) -> None:
    write(context, "start")
    sleeper = subprocess.Popen(["sleep", "300"])
    (LEDGER.parent / "grandchild").write_text(str(sleeper.pid))
    write(context, "end")


@dg.op
def floods_stdout(context) -> None:
    write(context, "start")
    for _ in range(200):
        print("x" * 100_000)
    write(context, "end")


@dg.op
def ignores_sigterm(context) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    write(context, "start")
    while True:
        try:
            time.sleep(60)
        except BaseException:  # noqa: BLE001  (that is the point)
            continue


@dg.resource
def slow_resource(context):
    handle = os.open(LEDGER.parent / "resource-began", os.O_WRONLY | os.O_CREAT)
    os.close(handle)
    time.sleep(120)


@dg.op(required_resource_keys={"slow"})
def needs_resource(context) -> None:
    write(context, "start")


def job_of(op, **options):
    @dg.job(name=f"job_{op.name}", **options)
    def made():
        op()

    return made


singles = [
    job_of(op)
    for op in (
        segfaults, exits_3, eats_memory, too_slow, leaves_a_grandchild, floods_stdout,
        ignores_sigterm,
    )
]  # fmt: skip
singles.append(job_of(needs_resource, resource_defs={"slow": slow_resource}))


@dg.op(pool="narrow")
def in_pool(context) -> None:
    pass_gate(context)


@dg.job
def pooled():
    in_pool()


defs = dg.Definitions(
    jobs=[
        chain, one, retried, forgiving, killer, other_chain, two_queues, on_slow_only, wide,
        pooled, *singles,
    ],
    executor=taskiq_executor,
)  # fmt: skip
