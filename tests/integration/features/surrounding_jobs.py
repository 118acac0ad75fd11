"""Jobs about what surrounds an op: resources, hooks and the capture of its output.

Invariant: whatever is written to stdout or stderr begins with ``said: ``.
"""

import os
import subprocess
import sys
import time

import dagster as dg
from graph_jobs import add_one, fails_always, one


@dg.resource
def broken(_):
    raise ValueError("no such database")


@dg.op(required_resource_keys={"broken"}, retry_policy=dg.RetryPolicy(max_retries=1, delay=0.1))
def needs_it():
    return 1


@dg.job(resource_defs={"broken": broken})
def resource_failure():
    add_one(needs_it())
    one()


@dg.success_hook
def slow_success(_):
    time.sleep(0.3)


@dg.failure_hook
def slow_failure(_):
    time.sleep(0.3)


@dg.failure_hook
def broken_hook(_):
    raise ValueError("in the hook")


@dg.op
def ends_while_a_hook_runs():
    time.sleep(0.15)


@dg.job
def hooks():
    # One each: Dagster keeps them in a set, so the order of two differs between processes.
    one.with_hooks({slow_success})()
    one.alias("has_no_failure").with_hooks({slow_failure})()
    fails_always.with_hooks({slow_failure})()
    fails_always.alias("fails_in_its_hook").with_hooks({broken_hook})()
    ends_while_a_hook_runs()


# -- output of a step


@dg.op
def talks():
    print("said: print", flush=True)
    print("said: print to stderr", file=sys.stderr, flush=True)
    os.write(1, b"said: descriptor\n")
    script = "import sys; print('said: child'); print('said: child to stderr', file=sys.stderr)"
    subprocess.run([sys.executable, "-c", script], check=True)


@dg.job
def compute_logs():
    talks()
