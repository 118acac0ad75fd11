"""Dagster's own bodies of a run and of a step, executed on the code that a worker has loaded.

Invariant: what executes is what ``dagster api execute_run`` and ``execute_step`` would execute; the
code is this worker's and not the run's pointer, which names paths of another machine.
"""

import contextlib
from collections.abc import Generator, Iterator, Mapping
from typing import Any, cast

import dagster as dg

from ..vocabulary.messages import RunMessage, StepMessage
from .names import (
    DagsterRun,
    ExecuteStepArgs,
    KnownExecutionState,
    ReconstructableJob,
    RetryMode,
    dagster_api,
    deserialize_value,
)
from .planning import FindPlan, _planned_once

#: Where ``taskiq_executor`` and its old name are made; a ``.configured()`` copy is made there too.
_RESUMING_EXECUTORS = (
    "dagster_taskiq_kit.orchestration.executor",
    "dagster_taskiq_kit.celery_compat",
)


@contextlib.contextmanager
def _own_code(job: ReconstructableJob) -> Generator[None, None, None]:
    """Make Dagster's bodies load ``job`` from this worker's workspace.

    They would take the run's own code pointer, with paths of the machine that it was launched on.
    """
    # Patched where the bodies look it up, a module that imports the name without exporting it.
    bodies = cast("Any", dagster_api)
    original = bodies.recon_job_from_origin
    bodies.recon_job_from_origin = lambda _origin: job
    try:
        yield
    finally:
        bodies.recon_job_from_origin = original


def can_resume(job: ReconstructableJob) -> bool:
    """Return whether a job's executor can go on where its log left off; others begin anew."""
    make = job.get_definition().executor_def.executor_creation_fn
    return getattr(make, "__module__", "") in _RESUMING_EXECUTORS


def executor_name(job: ReconstructableJob) -> str:
    """Return the name of a job's executor, for people."""
    return job.get_definition().executor_def.name


@contextlib.contextmanager
def saying_where_steps_run(
    sentence: str, metadata: Mapping[str, str]
) -> Generator[None, None, None]:
    """Make the event "Step worker started" tell which worker took the step."""
    original = dg.DagsterEvent.step_worker_started

    def step_worker_started(  # Dagster's own parameters
        log_manager: Any, job_name: str, message: str, metadata: Any, step_key: str | None
    ) -> dg.DagsterEvent:
        return original(
            log_manager, job_name, f"{message} {sentence}", {**metadata, **where}, step_key
        )

    where = {name: dg.MetadataValue.text(value) for name, value in metadata.items()}
    dg.DagsterEvent.step_worker_started = staticmethod(step_worker_started)
    try:
        yield
    finally:
        dg.DagsterEvent.step_worker_started = staticmethod(original)


def step_events(
    instance: dg.DagsterInstance,
    run: DagsterRun,
    message: StepMessage,
    job: ReconstructableJob,
    find_plan: FindPlan,
) -> Iterator[dg.DagsterEvent]:
    """Execute one attempt of one step as ``dagster api execute_step`` does; yields its events.

    The attempt is verified against the event log first (Dagster's ``verify_step``): an attempt that
    was started before yields no STEP_START.

    Raises:
        StepNotThere: The job, as it was loaded here, has no such step.
    """
    if run.job_code_origin is None:
        # It was created in the process that holds its job; Dagster's body wants one of some kind.
        run = run._replace(job_code_origin=job.get_python_origin())
    arguments = ExecuteStepArgs(
        job_origin=job.get_python_origin(),
        run_id=run.run_id,
        step_keys_to_execute=[message.step_key],
        retry_mode=RetryMode(message.retry_mode),
        known_state=deserialize_value(message.known_state, KnownExecutionState),
        should_verify_step=True,
    )
    with _own_code(job), _planned_once(find_plan):
        yield from dagster_api._execute_step_command_body(arguments, instance, run)


def execute_run(
    instance: dg.DagsterInstance, message: RunMessage, job: ReconstructableJob, *, resume: bool
) -> bool:
    """Execute a run, or resume it, as ``dagster api execute_run`` does.

    Returns:
        Whether it ended without a failure.
    """
    body = dagster_api._resume_run_command_body if resume else dagster_api._execute_run_command_body
    with _own_code(job):
        return body(message.run_id, instance, lambda _event: None, True) == 0
