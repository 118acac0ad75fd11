"""Outputs of every kind that take their time to be stored, and steps that begin when they are."""

import os
import time
from pathlib import Path

import dagster as dg

from dagster_taskiq_kit import taskiq_executor

HOME = Path(os.environ.get("DAGSTER_HOME", "."))  # a code server has none


class SlowStore(dg.ConfigurableIOManager):
    """Stores after the test opens the gate, and fails where the step is told so."""

    def _file(self, context) -> Path:
        return HOME / "_".join(context.get_identifier()).replace("/", "_")

    def handle_output(self, context, obj) -> None:
        (HOME / f"storing-{context.step_key}").touch()
        while not (HOME / "store").exists():
            time.sleep(0.02)
        if obj == "bad":
            raise ValueError("the store is full")
        self._file(context).write_text(str(obj))

    def load_input(self, context) -> str:
        return self._file(context.upstream_output).read_text()


def note(context) -> None:
    (HOME / f"began-{context.op.name}").touch()


@dg.op
def plain() -> str:
    return "1"


@dg.op
def of_plain(context, value: str) -> None:
    note(context)
    assert value == "1"


@dg.op(out={"stored": dg.Out(str), "signal": dg.Out(dg.Nothing)})
def several(context):
    """A Nothing is stored nowhere: who waits for it begins while the step goes on."""
    yield dg.Output(None, "signal")
    while not (HOME / "began-of_signal").exists():
        time.sleep(0.02)
    yield dg.Output("1", "stored")


@dg.op(ins={"after": dg.In(dg.Nothing)})
def of_signal(context) -> None:
    note(context)


@dg.op
def of_stored(context, value: str) -> None:
    note(context)
    assert value == "1"


@dg.op(out=dg.DynamicOut(str))
def many():
    for number in "12":
        yield dg.DynamicOutput(number, mapping_key=number)


@dg.op
def of_each(context, value: str) -> None:
    assert value in "12"


@dg.op
def bad() -> str:
    return "bad"


@dg.op
def of_bad(context, value: str) -> None:
    note(context)


EARLY = taskiq_executor.configured(
    {"step_dependency_config": {"require_upstream_step_success": False}}, name="early"
)


@dg.job(executor_def=EARLY, resource_defs={"io_manager": SlowStore()})
def every_kind():
    of_plain(plain())
    stored, signal = several()
    of_signal(signal)
    of_stored(stored)
    many().map(of_each)


@dg.job(executor_def=EARLY, resource_defs={"io_manager": SlowStore()})
def fails_to_store():
    of_bad(bad())


defs = dg.Definitions(jobs=[every_kind, fails_to_store])
