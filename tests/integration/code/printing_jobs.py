"""Steps that print: themselves, through a program, and last words before they are killed."""

import os
import signal
import subprocess
import sys

import dagster as dg

from dagster_taskiq_kit import taskiq_executor

LINES = 500


@dg.op
def talks() -> None:
    for number in range(LINES):
        print(f"line {number}")
    sys.stdout.flush()
    subprocess.run([sys.executable, "-c", "print('said by a program')"], check=True)
    print("on stderr", file=sys.stderr)


@dg.op
def dies() -> None:
    print("last words", flush=True)
    print("without an end", end="", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


@dg.job
def talking():
    talks()


@dg.job
def dying():
    dies()


defs = dg.Definitions(jobs=[talking, dying], executor=taskiq_executor)
