"""Jobs about how many steps run at once, and when a step may begin.

Invariant: steps last long enough to be seen together, if nothing keeps them apart.
"""

import time

import dagster as dg
from graph_jobs import add_one

TAGGED = {"weight": "heavy"}


@dg.op
def takes_a_while():
    time.sleep(0.2)


@dg.op(tags=TAGGED)
def is_heavy():
    time.sleep(0.2)


@dg.op(pool="p")
def uses_the_pool():
    time.sleep(0.2)


def three(op):
    for name in ("x", "y", "z"):
        op.alias(f"{op.name}_{name}")()


@dg.job
def max_concurrent():
    three(takes_a_while)


@dg.job
def tag_concurrency_limits():
    three(is_heavy)
    three(takes_a_while)


@dg.job
def pools():
    three(uses_the_pool)


@dg.op(out={"early": dg.Out(), "late": dg.Out()}, config_schema={"patience_s": dg.Field(float, 0)})
def goes_on_after_its_first_output(context):
    yield dg.Output(1, "early")
    until_s = time.monotonic() + context.op_config["patience_s"]
    while time.monotonic() < until_s and not began(context, "begins_early"):
        time.sleep(0.1)
    yield dg.Output(2, "late")


def began(context, step_key):
    starts = context.instance.get_records_for_run(
        context.run_id, of_type=dg.DagsterEventType.STEP_START
    )
    return any(record.event_log_entry.step_key == step_key for record in starts.records)


@dg.job
def early_start():
    early, late = goes_on_after_its_first_output()
    add_one.alias("begins_early")(early)
    add_one.alias("begins_late")(late)
