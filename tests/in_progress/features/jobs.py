"""One job for each feature of Dagster that users lean on; the code that the fleet's worker loads.

Invariant: every job exists once and is bound to an executor only by ``build``, so that a run on
workers and its reference differ in nothing else.
"""

import os
import subprocess
import sys
import time

import dagster as dg

from dagster_taskiq_kit import taskiq_executor

TAGGED = {"weight": "heavy"}


@dg.op
def one():
    return 1


@dg.op
def add_one(number):
    return number + 1


# -- retries


@dg.op(retry_policy=dg.RetryPolicy(max_retries=2, delay=0.3))
def fails_once(context):
    if context.retry_number == 0:
        raise ValueError("the first attempt")
    return 1


@dg.op(retry_policy=dg.RetryPolicy(max_retries=1, delay=0.1))
def fails_always():
    raise ValueError("every attempt")


@dg.job
def op_retries():
    add_one(fails_once())
    add_one.alias("never_begins")(fails_always())


@dg.op
def asks_for_a_retry(context):
    if context.retry_number == 0:
        raise dg.RetryRequested(max_retries=2, seconds_to_wait=0.3)
    return 1


@dg.job
def retry_requested():
    add_one(asks_for_a_retry())


# -- the shape of a graph


@dg.op(out=dg.Out(is_required=False))
def yields_nothing():
    yield from ()


@dg.job
def skips():
    add_one.alias("skipped_too")(add_one.alias("skipped")(yields_nothing()))
    one()


@dg.op(out={"left": dg.Out(is_required=False), "right": dg.Out(is_required=False)})
def yields_left():
    yield dg.Output(1, "left")


@dg.job
def optional_outputs():
    left, right = yields_left()
    add_one.alias("took_left")(left)
    add_one.alias("took_right")(right)


@dg.op(out=dg.DynamicOut())
def many():
    for name in ("a", "b", "c"):
        yield dg.DynamicOutput(len(name), mapping_key=name)


@dg.op
def total(numbers):
    return sum(numbers)


@dg.job
def dynamic():
    total(many().map(lambda n: add_one.alias("again")(add_one(n))).collect())


@dg.job
def chain():
    add_one.alias("third")(add_one.alias("second")(one.alias("first")()))


@dg.graph
def inner(number):
    return add_one.alias("deep")(number)


@dg.graph
def outer():
    return add_one(inner(one()))


@dg.job
def nested_graphs():
    add_one.alias("last")(inner.alias("beside")(outer()))


# -- how many at once, and when


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


# -- resources and hooks


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


# -- assets


@dg.asset
def raw():
    return [3, 1, 2]


@dg.asset
def ordered(raw):
    return sorted(raw)


@dg.asset
def greatest(ordered):
    return ordered[-1]


@dg.asset_check(asset=raw)
def not_empty(raw):
    return dg.AssetCheckResult(passed=bool(raw))


@dg.asset_check(asset=raw)
def is_long(raw):
    return dg.AssetCheckResult(passed=len(raw) > 9, severity=dg.AssetCheckSeverity.WARN)


@dg.asset_check(asset=ordered, blocking=True)
def ends_with_nine(ordered):
    return dg.AssetCheckResult(passed=ordered[-1] == 9)


@dg.asset
def first_page():
    return 1


@dg.asset
def second_page(first_page):
    return first_page + 1


@dg.asset
def last_page(second_page):
    return second_page + 1


LETTERS = dg.StaticPartitionsDefinition(["x", "y"])


@dg.asset(partitions_def=LETTERS)
def letter(context):
    return context.partition_key


@dg.asset(partitions_def=LETTERS)
def word(letter):
    return letter * 3


def build(executor):
    pages = [first_page, second_page, last_page]
    return dg.Definitions(
        assets=[raw, ordered, greatest, *pages, letter, word],
        asset_checks=[not_empty, is_long, ends_with_nine],
        jobs=[
            op_retries, retry_requested, skips, optional_outputs, dynamic, chain, nested_graphs,
            max_concurrent, tag_concurrency_limits, pools, early_start, resource_failure, hooks,
            compute_logs,
            dg.define_asset_job("checked_assets", selection=[raw, ordered, greatest]),
            dg.define_asset_job("pages", selection=pages),
            dg.define_asset_job("letters", selection=[letter, word]),
        ],
        executor=executor,
    )  # fmt: skip


def in_process_reference():
    return build(dg.in_process_executor)


def multiprocess_reference():
    return build(dg.multiprocess_executor)


defs = build(taskiq_executor)
