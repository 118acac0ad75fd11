"""Jobs for the chaos tests: every body writes a ledger, and waits at a gate that the test opens."""

import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import dagster as dg

from dagster_taskiq_kit import taskiq_executor

LEDGER = Path(os.environ["LEDGER"])
#: As code does that takes its time to import.
select.select([], [], [], float(os.environ.get("IMPORT_S", "0")))
if "LEAVE_A_THREAD" in os.environ:
    threading.Thread(target=threading.Event().wait, name="left", daemon=True).start()


def write(context: dg.OpExecutionContext, what: str) -> None:
    line = {
        "run": context.run_id, "step": context.get_step_execution_context().step.key,
        "attempt": context.retry_number + 1, "pid": os.getpid(), "what": what,
        "worker": worker_pid(),
        "at": time.clock_gettime(time.CLOCK_BOOTTIME),
    }  # fmt: skip
    handle = os.open(LEDGER, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(handle, json.dumps(line).encode() + b"\n")
    os.close(handle)


def worker_pid() -> int:
    """The worker above this child: child <- fork server <- worker."""
    status = Path(f"/proc/{os.getppid()}/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("PPid:")))


def pass_gate(context: dg.OpExecutionContext, name: str | None = None) -> None:
    """Write start, wait until the test makes the gate's file, write end."""
    write(context, "start")
    machine = os.environ.get("GATES")  # a worker may have gates of its own
    gate = LEDGER.parent / "gates" / "-".join(filter(None, [machine, name or context.op.name]))
    while not gate.exists():
        # Under libfaketime time.sleep fails: it takes the monotonic clock's end of the sleep for a
        # wall clock's.
        select.select([], [], [], 0.02)
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
    os.kill(worker_pid(), signal.SIGKILL)
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


@dg.op(ins={"after": dg.In(dg.Nothing)}, out=dg.Out(dg.Nothing))
def takes_a_moment(context) -> None:
    live_visibly(context)


@dg.op(ins={"after": dg.In(dg.Nothing)}, out=dg.Out(dg.Nothing), pool="shared")
def takes_a_moment_in_a_pool(context) -> None:
    live_visibly(context)


def live_visibly(context) -> None:
    """Write a line all the time, so that two at once show in the ledger, however they end."""
    write(context, "start")
    for _ in range(14):
        select.select([], [], [], 0.05)
        write(context, "beat")
    write(context, "end")


@dg.op(out={f"out_{n}": dg.Out(int, is_required=False) for n in range(60)})
def chats(context):
    """Write an output each 10 ms."""
    write(context, "start")
    for n in range(60):
        yield dg.Output(n, f"out_{n}")
        select.select([], [], [], 0.01)
        write(context, "beat")
    write(context, "end")


@dg.job(executor_def=taskiq_executor.configured({"worker_lost_retries": 50}, name="enduring"))
def enduring():
    """Four steps in two rows."""
    first_row = [takes_a_moment.alias(f"left_{n}")() for n in range(2)]
    for n in range(2):
        takes_a_moment_in_a_pool.alias(f"right_{n}")(first_row)


@dg.job(
    executor_def=taskiq_executor.configured(
        {
            "worker_lost_retries": 50,
            "step_dependency_config": {"require_upstream_step_success": False},
        },
        name="enduring_and_chatty",
    )
)
def enduring_and_chatty():
    """Two steps that say much, and two rows of quiet ones."""
    for n in range(2):
        chats.alias(f"chats_{n}")()
    takes_a_moment_in_a_pool.alias("right_0")([takes_a_moment.alias("left_0")()])


def unit(number: int):
    """One of many steps that take a moment and say much."""

    @dg.op(name=f"unit_{number}", ins={"after": dg.In(dg.Nothing)})
    def made(context) -> int:
        write(context, "start")
        for _ in range(12):
            context.log_event(dg.AssetObservation(asset_key="seen"))
            time.sleep(0.01)
        write(context, "end")
        return number

    return made


@dg.op(out={"kept": dg.Out(int), "dropped": dg.Out(int, is_required=False)})
def drops(context):
    write(context, "start")
    write(context, "end")
    yield dg.Output(1, "kept")


@dg.op
def never(context, number: int) -> None:
    write(context, "start")


@dg.op
def asks_again(context) -> int:
    write(context, "start")
    if context.retry_number == 0:
        raise dg.RetryRequested(max_retries=1, seconds_to_wait=5)
    write(context, "end")
    return 1


@dg.op(pool="narrow")
def in_narrow_pool(context) -> None:
    write(context, "start")
    time.sleep(0.3)
    write(context, "end")


@dg.op(out=dg.Out(dg.Nothing))
def begins(context) -> None:
    write(context, "start")
    write(context, "end")


@dg.op(ins={"after": dg.In(dg.Nothing)}, retry_policy=dg.RetryPolicy(max_retries=5))
def longer_than_a_drain(context) -> None:
    pass_gate(context)


@dg.job(executor_def=taskiq_executor.configured({"worker_lost_retries": 5}, name="patient_fleet"))
def rolling():
    _, dropped = drops()
    never(dropped)
    asks_again()
    for number in range(3):
        in_narrow_pool.alias(f"in_narrow_pool_{number}")()
    done = begins()
    longer_than_a_drain(done)
    for number in range(52):
        made = unit(number)(done)
        done = made if number % 4 == 3 else done


defs = dg.Definitions(
    jobs=[
        chain, one, retried, forgiving, killer, other_chain, two_queues, on_slow_only, wide,
        pooled, rolling, enduring, enduring_and_chatty, *singles,
    ],
    executor=taskiq_executor,
)  # fmt: skip
