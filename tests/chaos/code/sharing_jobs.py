"""Jobs whose steps may share a process, by a tag of the job or of an op."""

import atexit
import os
import sys
from pathlib import Path

import dagster as dg

from dagster_taskiq_kit import taskiq_executor

sys.path.insert(0, str(Path(__file__).parent))
from chaos_jobs import pass_gate, write

SHARED = {"dagster-taskiq/isolation": "run"}


@dg.op
def link(context, number: int) -> int:
    write(context, "start")
    context.log.info("line of %s", context.op.name)
    print(f"print of {context.op.name}")
    write(context, "end")
    return number + 1


@dg.op
def starts(context) -> int:
    write(context, "start")
    return 0


@dg.op
def registers(context) -> None:
    """Code like a client of a metrics service, which sends what it has when its process leaves."""
    file = Path(os.environ["LEDGER"]).parent / "at_exit"
    atexit.register(file.write_text, context.run_id)
    write(context, "start")


@dg.job(tags=SHARED)
def with_exit_handler():
    registers()


def _chain():
    number = starts()
    for position in range(5):
        number = link.alias(f"link_{position}")(number)


@dg.job(tags=SHARED)
def shared_chain():
    _chain()


@dg.job
def own_chain():
    _chain()


@dg.job(tags=SHARED, executor_def=taskiq_executor.configured({"fuse_limit": 2}, name="by_two"))
def chain_by_two():
    _chain()


@dg.op(out=dg.DynamicOut(int))
def ten(context):
    write(context, "start")
    for number in range(10):
        yield dg.DynamicOutput(number, mapping_key=f"n{number}")


@dg.op
def each(context, number: int) -> int:
    write(context, "start")
    if number == 0:
        pass_gate(context, "first_of_ten")
    write(context, "end")
    return number


@dg.job(tags=SHARED)
def shared_fan():
    ten().map(each)


@dg.op(tags={"dagster-taskiq/priority": "9"})
def urgent(context) -> None:
    write(context, "start")


@dg.job
def urgent_job():
    urgent()


@dg.op
def crashes(context, number: int) -> int:
    write(context, "start")
    os._exit(3)


@dg.op(tags={"dagster-taskiq/timeout": "1"})
def is_slow(context, number: int) -> int:
    write(context, "start")
    os.read(os.pipe()[0], 1)
    return number


@dg.op(retry_policy=dg.RetryPolicy(max_retries=2))
def fails_once(context, number: int) -> int:
    write(context, "start")
    if context.retry_number == 0:
        raise ValueError("not yet")
    return number


@dg.op
def raises(context, number: int) -> int:
    write(context, "start")
    raise ValueError("never")


@dg.job(tags=SHARED)
def one_of_each():
    number = starts()
    for op in (crashes, is_slow, fails_once, raises, link):
        op(number)


@dg.op
def waits(context, number: int) -> int:
    pass_gate(context)
    return number


@dg.job(tags=SHARED)
def waiting_chain():
    link(waits(starts()))


@dg.op(tags=SHARED)
def tagged(context, number: int) -> int:
    write(context, "start")
    return number


@dg.job
def by_op():
    number = starts()
    number = tagged.alias("tagged_0")(number)
    number = tagged.alias("tagged_1")(number)
    link(number)


@dg.op(tags={**SHARED, "dagster-taskiq/queue": "slow"})
def on_slow(context, number: int) -> int:
    pass_gate(context)
    return number


@dg.job(tags=SHARED)
def over_another_queue():
    link(on_slow(starts()))


@dg.job(tags={"dagster-taskiq/isolation": "none"})
def tagged_badly():
    starts()


defs = dg.Definitions(
    jobs=[
        shared_chain, own_chain, with_exit_handler, chain_by_two, shared_fan, urgent_job, one_of_each, waiting_chain,
        by_op, over_another_queue, tagged_badly,
    ],
    executor=taskiq_executor,
)  # fmt: skip
