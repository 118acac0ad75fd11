"""Code that leaves a thread running after its import, so that a worker must serve it layered.

Invariant: the thread lives as long as the process that imported this file.
"""

import threading

import dagster as dg

from dagster_taskiq_kit import taskiq_executor

NEVER = threading.Event()
threading.Thread(target=NEVER.wait, name="left-running", daemon=True).start()


@dg.op
def sees_the_thread():
    assert "left-running" in [thread.name for thread in threading.enumerate()]
    return 1


@dg.op
def comes_after(number):
    return number + 1


@dg.job
def threaded():
    comes_after(sees_the_thread())


def build(executor):
    return dg.Definitions(jobs=[threaded], executor=executor)


def in_process_reference():
    return build(dg.in_process_executor)


defs = build(taskiq_executor)
