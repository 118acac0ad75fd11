"""One trivial step, executed before the first fork so that no child has to execute it first.

Invariant: it touches nothing of the user's, reads no override from the environment, leaves the
environment as it was, and stops no worker from starting.

Lazy imports, compiled checks and definition caches that every step touches are then inherited, and
so is the code that the interpreter has adapted to it: a child neither does that again nor copies
the pages it would write to: some 12 ms of each step. It runs as a child's step does, on an
ephemeral instance, and says nothing.
"""

import contextlib
import logging
import os

import dagster as dg

from ...dagster_internals import names as internals
from ...dagster_internals import step_bodies
from ...vocabulary.messages import CodeName, StepMessage

#: The interpreter adapts code that it has executed a number of times.
_TIMES = 10


@dg.op
def _rehearsed() -> int:
    return 1


@dg.op
def _rehearsed_too(number: int) -> int:
    return number


# Named, not left to the default: that is the user's own where the environment says so.
@dg.job(resource_defs={"io_manager": dg.fs_io_manager})
def _rehearsal() -> None:
    _rehearsed_too(_rehearsed())


def rehearse() -> None:
    """Execute the trivial job's steps in this process.

    To be called before code is loaded: it sets Dagster's global DefinitionsLoadContext.
    """
    logging.disable(logging.CRITICAL)
    environment = dict(os.environ)
    try:
        with (
            # What it would have saved is done by the first step then.
            contextlib.suppress(Exception),
            dg.DagsterInstance.ephemeral() as instance,
            open(os.devnull, "w") as nowhere,  # noqa: PTH123
            contextlib.redirect_stderr(nowhere),
        ):
            for _ in range(_TIMES):
                _execute_steps(instance)
    finally:
        os.environ.clear()
        os.environ.update(environment)
        logging.disable(logging.NOTSET)


def _execute_steps(instance: dg.DagsterInstance) -> None:
    job = dg.reconstructable(_rehearsal)
    run = instance.create_run_for_job(
        _rehearsal, status=dg.DagsterRunStatus.STARTED, job_code_origin=job.get_python_origin()
    )
    for step_key in ("_rehearsed", "_rehearsed_too"):
        message = StepMessage(
            run_id=run.run_id,
            step_key=step_key,
            attempt=1,
            code=CodeName(job=run.job_name),
            retry_mode=internals.RetryMode.ENABLED.value,
            known_state=internals.serialize_value(internals.KnownExecutionState()),
        )
        for _ in step_bodies.step_events(instance, run, message, job, lambda *_: None):
            pass
