"""What a run's log says of the code that executes it.

Invariant: a run that was launched with other code than the one that executes it says so, and one
that is executed by older code than the files have.
"""

import logging
import time
from collections.abc import Iterator

import dagster as dg

from ...dagster_internals import names as internals
from ...dagster_internals.code_locations import LoadedCode
from ...vocabulary.tags import CODE_TAG
from ..place import Place


def warn_of_other_code(
    instance: dg.DagsterInstance,
    run: internals.DagsterRun,
    code: LoadedCode,
    place: Place,
    step_key: str | None = None,
) -> None:
    """Write into a run's log in what the code that executes it is not what people expect.

    Args:
        instance: The Dagster instance.
        run: The run.
        code: The code that this process has.
        place: Who took it.
        step_key: The step that is executed; None for the run itself.
    """
    for note in _notes(run, code, place):
        warn(instance, run, note, step_key)


def _notes(run: internals.DagsterRun, code: LoadedCode, place: Place) -> Iterator[str]:
    loaded = time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(code.loaded_at_s))
    if place.stale:
        yield (
            f"Worker {place.worker} executes this with the code of {code.location!r} that it "
            f"loaded at {loaded}, which is older than its files: {place.stale}."
        )
    launched = run.tags.get(CODE_TAG)
    if launched and code.fingerprint and launched != code.fingerprint:
        yield (
            f"This run was launched with other code ({launched}) than executes it "
            f"({code.fingerprint}, loaded at {loaded} by worker {place.worker} on {place.host}): "
            "the source files differ. Deploy the same to both; `Reload` in the UI and "
            f"`dagster-taskiq worker reload {place.worker}` load what is deployed."
        )


def warn(
    instance: dg.DagsterInstance, run: internals.DagsterRun, note: str, step_key: str | None = None
) -> None:
    """Write a warning into a run's log."""
    instance.handle_new_event(
        dg.EventLogEntry(
            error_info=None, level=logging.WARNING, user_message=note, run_id=run.run_id,
            timestamp=time.time(), job_name=run.job_name, step_key=step_key,
        )
    )  # fmt: skip
