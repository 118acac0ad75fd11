"""Jobs about retries and the shape of a graph.

Invariant: no op here looks at anything but its inputs and the number of its attempt.
"""

import dagster as dg


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
