"""Jobs whose steps say many kinds of events, and note what they see of their own."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import NamedTuple

import dagster as dg
from dagster._serdes import whitelist_for_serdes

from dagster_taskiq_kit import taskiq_executor

sys.path.insert(0, str(Path(__file__).parent))
from chaos_jobs import pass_gate, write

NOTES = Path(os.environ["LEDGER"]).parent / "pids"
_READ = """
import sys
import dagster as dg
with dg.DagsterInstance.get() as instance:
    print(instance.get_latest_materialization_event(dg.AssetKey(sys.argv[1])) is not None)
"""


def note(**said) -> None:
    with NOTES.open("a") as notes:
        notes.write(json.dumps(said) + "\n")


@dg.op(retry_policy=dg.RetryPolicy(max_retries=3))
def says_all(context):
    """Every kind of event that a body can say, with a gate in their midst."""
    context.log.info("before the gate")
    context.log_event(dg.AssetMaterialization("said", metadata={"rows": 5}, tags={"a": "b"}))
    context.log_event(dg.AssetObservation("said"))
    context.log_event(dg.ExpectationResult(success=True))
    pass_gate(context)
    for number in range(20):
        context.log.info("line %s", number)
    context.log_event(dg.AssetMaterialization("said", partition="p"))
    return 1


@dg.op
def then(context, number: int) -> int:
    write(context, "start")
    return number


@dg.job
def all_kinds():
    then(says_all())


@dg.op
def reads_own(context) -> None:
    """Its own instance, another one of this process, a fork, and a program that it starts."""
    for number in range(5):
        name = f"own_{number}"
        key = dg.AssetKey(name)
        context.log_event(dg.AssetMaterialization(name))
        if number == 0:
            seen = context.instance.get_latest_materialization_event(key) is not None
        elif number == 1:
            with dg.DagsterInstance.get() as other:
                seen = other.get_latest_materialization_event(key) is not None
        elif number == 2:
            pid = os.fork()
            if pid == 0:
                with dg.DagsterInstance.get() as other:
                    found = other.get_latest_materialization_event(key)
                os._exit(0 if found is not None else 1)
            seen = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        elif number == 3:
            read = [sys.executable, "-c", _READ, name]
            done = subprocess.run(read, capture_output=True, text=True, check=True)
            seen = done.stdout.strip() == "True"
        else:
            context.log.info("a line of its own")
            records = context.instance.all_logs(context.run_id)
            seen = any(entry.user_message == "a line of its own" for entry in records)
            seen = seen and context.instance.get_run_by_id(context.run_id).status.value == "STARTED"
        note(name="read", number=number, seen=seen)


@dg.job
def own():
    reads_own()


@dg.op(out=dg.DynamicOut(int))
def numbers():
    for number in range(20):
        yield dg.DynamicOutput(number, mapping_key=f"n{number}")


@dg.op
def trivial(number: int) -> int:
    return number


@dg.op
def total(numbers: list[int]) -> int:
    return sum(numbers)


@dg.job
def many():
    total(numbers().map(trivial).collect())


@dg.op
def chatty(context) -> None:
    """More lines than may be unstored, and a note of how far it is."""
    write(context, "start")
    for number in range(3_000):
        context.log.info("line %s", number)
        if number % 50 == 0:
            note(name="said", number=number)
    write(context, "end")


@dg.job
def talks():
    chatty()


@dg.op
def says_what_no_database_takes(context) -> None:
    write(context, "start")
    # An index of PostgreSQL takes rows of a third of a page.
    context.log_event(dg.AssetMaterialization(os.urandom(20_000).hex()))
    context.instance.get_run_by_id(context.run_id)
    write(context, "end")


@dg.op
def says_it_last(context) -> None:
    write(context, "start")
    context.log_event(dg.AssetMaterialization(os.urandom(20_000).hex()))


@dg.job
def refused():
    says_what_no_database_takes()


@dg.job
def refused_last():
    says_it_last()


@whitelist_for_serdes
class Colour(NamedTuple("_Colour", [("name", str)]), dg.MetadataValue["Colour"]):
    """Metadata of a class that only this code has."""

    @property
    def value(self):
        return self


@dg.op
def says_a_class_of_its_own(context) -> None:
    context.log.info("before it")
    context.log_event(dg.AssetMaterialization("painted", metadata={"colour": Colour("red")}))
    context.log.info("after it")


@dg.job
def own_class():
    says_a_class_of_its_own()


@dg.op
def leaves_a_talker(context) -> None:
    def talk():
        while True:
            context.log.info("still here")

    threading.Thread(target=talk, daemon=True).start()


@dg.job
def talked():
    leaves_a_talker()


defs = dg.Definitions(
    jobs=[all_kinds, own, many, talks, refused, refused_last, own_class, talked],
    executor=taskiq_executor,
)
