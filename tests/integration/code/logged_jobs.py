"""Steps whose lines a log shipper reads: prints at import, in a step, a secret, and a failure."""

import logging
import os
import signal
import sys

import dagster as dg

from dagster_taskiq_kit import taskiq_executor

print("printed at import")
os.write(2, b"written past Python\n")


@dg.op
def talks() -> None:
    print("two\nlines")
    print("redis://someone:hunter2@somewhere/0")
    logging.getLogger("mine").warning("on stderr")
    print("in \x1b[31mred\x1b[0m", file=sys.stderr)


@dg.op(ins={"after": dg.In(dg.Nothing)})
def fails() -> None:
    raise ValueError("of several\nlines")


@dg.op(ins={"after": dg.In(dg.Nothing)})
def dies() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@dg.job
def logged():
    said = talks()
    fails(said)
    dies(said)


defs = dg.Definitions(jobs=[logged], executor=taskiq_executor)
