"""Jobs whose steps start programs in every way, linger, chatter, or must be cancelled kindly."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import dagster as dg

from dagster_taskiq_kit import PriorityStreamBroker, TaskiqSettings, taskiq_executor

FOLDER = Path(os.environ["LEDGER"]).parent
time.sleep(float(os.environ.get("IMPORT_S", "0")))

broker = PriorityStreamBroker(TaskiqSettings.resolve())


def note(name: str, **values) -> None:
    line = json.dumps({"name": name, "pid": os.getpid(), **values})
    handle = os.open(FOLDER / "pids", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(handle, line.encode() + b"\n")
    os.close(handle)


def wait_for(name: str) -> None:
    while not (FOLDER / "gates" / name).exists():
        time.sleep(0.02)


PROGRAM = [sys.executable, "-c", "import time; time.sleep(600)"]


def fork_and(then) -> None:
    pid = os.fork()
    if pid == 0:
        try:
            then()
        finally:
            os._exit(0)
    return pid


def in_background(name: str) -> None:
    """A daemon as it is made since 1970, and no program is started."""
    os.setsid()
    fork_and(lambda: (note(name), time.sleep(600)))


def start_everything() -> None:
    note("program", of=subprocess.Popen(PROGRAM).pid)
    note("own session", of=subprocess.Popen(PROGRAM, start_new_session=True).pid)
    multiprocessing.get_context("fork").Process(
        target=lambda: (note("worker process"), time.sleep(600))
    ).start()
    os.waitpid(fork_and(lambda: in_background("daemon")), 0)
    shell = f"setsid {PROGRAM[0]} -c 'import time; time.sleep(600)' >/dev/null 2>&1 & echo $!"
    said = subprocess.run(["sh", "-c", shell], stdout=subprocess.PIPE, check=True)
    note("left by a shell", of=int(said.stdout))


@dg.op(retry_policy=dg.RetryPolicy(max_retries=1))
def starts_programs(context) -> None:
    note("body", attempt=context.retry_number + 1)
    if context.retry_number == 0:
        start_everything()
        time.sleep(600)


@dg.job
def programs():
    starts_programs()


@dg.op
def starts_and_ends() -> None:
    start_everything()
    wait_for("end")


@dg.job
def programs_and_end():
    starts_and_ends()


@dg.job(executor_def=dg.multiprocess_executor)
def programs_of_multiprocess():
    starts_programs()


@dg.op
def slow_to_load(context) -> None:
    note("body", attempt=context.retry_number + 1)
    wait_for("slow")


@dg.job
def held():
    slow_to_load()


@dg.op
def leaves_a_thread() -> int:
    threading.Thread(target=time.sleep, args=(3_600,), name="poller").start()
    return 1


@dg.op
def leaves_a_pool(_number: int) -> int:
    from concurrent.futures import ProcessPoolExecutor

    pool = ProcessPoolExecutor(1)
    pool.submit(time.sleep, 3_600)
    return 1


@dg.op
def leaves_an_exit_handler(_number: int) -> int:
    import atexit

    atexit.register(time.sleep, 3_600)
    return 1


@dg.op
def leaves_stdout_blocked(_number: int) -> None:
    threading.read_end, write = os.pipe()  # it stays open, and nobody reads it
    sys.stdout = os.fdopen(write, "w", buffering=1 << 22)
    sys.stdout.write("x" * (1 << 20))  # more than a pipe holds


@dg.job
def lingering():
    leaves_stdout_blocked(leaves_an_exit_handler(leaves_a_pool(leaves_a_thread())))


@dg.op(out=dg.DynamicOut(int))
def chatters(context):
    note("body", attempt=context.retry_number + 1)
    for number in range(10_000):
        yield dg.DynamicOutput(number, mapping_key=str(number))
        time.sleep(0.01)


@dg.op(retry_policy=dg.RetryPolicy(max_retries=1))
def is_quiet(context) -> None:
    note("quiet", attempt=context.retry_number + 1)
    wait_for(f"quiet-{context.retry_number + 1}")


@dg.job(
    executor_def=taskiq_executor.configured(
        {"step_dependency_config": {"require_upstream_step_success": False}}
    )
)
def chatty():
    for number in range(3):
        chatters.alias(f"chatters_{number}")()
    is_quiet()


@dg.op
def cleans_up() -> None:
    """Talks to its helper while it is being cancelled, and takes its time."""
    helper = subprocess.Popen([sys.executable, "-c", HELPER, str(FOLDER / "signalled")])
    try:
        note("cleaning", of=helper.pid)
        time.sleep(300)
    finally:
        time.sleep(0.5)
        note("cleaned", alive=helper.poll() is None)
        helper.kill()


HELPER = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: (open(sys.argv[1], "a").write("signalled"), sys.exit(1)))
time.sleep(300)
"""


@dg.graph
def cleaning():
    cleans_up()


cleaning_here = cleaning.to_job("cleaning_here", executor_def=taskiq_executor)
cleaning_apart = cleaning.to_job("cleaning_apart", executor_def=dg.multiprocess_executor)


@dg.op
def is_deaf() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    note("deaf")
    time.sleep(600)


@dg.job
def deaf():
    is_deaf()


@broker.task
def measure(text: str) -> int:
    note("measured")
    return len(text)


defs = dg.Definitions(
    jobs=[
        programs, programs_and_end, programs_of_multiprocess, held, lingering, chatty,
        cleaning_here, cleaning_apart, deaf,
    ],
    executor=taskiq_executor,
)  # fmt: skip
