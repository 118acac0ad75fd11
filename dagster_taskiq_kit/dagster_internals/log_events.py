"""Events of a run's log: where they are, those written for a process that is gone, printed output.

Invariant: an event that is written for a process that is gone is the one that Dagster would have
written in it.
"""

import contextlib
from collections.abc import Generator
from typing import Any

import dagster as dg

from .names import (
    EventLogCursor,
    ExecutionStep,
    IStepContext,
    LocalComputeLogManager,
    SerializableErrorInfo,
    StepFailureData,
    StepRetryData,
    compute_logs,
    pool_key_for_step,
)

#: What ends an attempt of a step.
STEP_ENDS = frozenset(
    {
        dg.DagsterEventType.STEP_SUCCESS,
        dg.DagsterEventType.STEP_FAILURE,
        dg.DagsterEventType.STEP_UP_FOR_RETRY,
    }
)

_Type = dg.DagsterEventType
#: Types of events with which nothing else is stored.
ONLY_A_ROW = frozenset(
    {
        _Type.ENGINE_EVENT,
        _Type.HANDLED_OUTPUT,
        _Type.HOOK_COMPLETED,
        _Type.HOOK_ERRORED,
        _Type.HOOK_SKIPPED,
        _Type.LOADED_INPUT,
        _Type.LOGS_CAPTURED,
        _Type.OBJECT_STORE_OPERATION,
        _Type.RESOURCE_INIT_FAILURE,
        _Type.RESOURCE_INIT_STARTED,
        _Type.RESOURCE_INIT_SUCCESS,
        _Type.STEP_EXPECTATION_RESULT,
        _Type.STEP_FAILURE,
        _Type.STEP_INPUT,
        _Type.STEP_OUTPUT,
        _Type.STEP_RESTARTED,
        _Type.STEP_SKIPPED,
        _Type.STEP_START,
        _Type.STEP_SUCCESS,
        _Type.STEP_UP_FOR_RETRY,
        _Type.STEP_WORKER_STARTED,
        _Type.STEP_WORKER_STARTING,
    }
)


def log_cursor(position: int) -> str:
    """Return Dagster's cursor for a place in a run's log, given by the storage id of a row."""
    return EventLogCursor.from_storage_id(position).to_string()


def pool_of(step: ExecutionStep) -> str | None:
    """Return the concurrency pool of a step, or None."""
    return pool_key_for_step(step)


def write_step_failure(context: IStepContext, error: SerializableErrorInfo) -> None:
    """Write STEP_FAILURE for a step whose process is gone."""
    dg.DagsterEvent.step_failure_event(
        step_context=context,
        step_failure_data=StepFailureData(error=error, user_failure_data=None),
    )


def write_step_up_for_retry(
    context: IStepContext, error: SerializableErrorInfo, delay_s: float
) -> None:
    """Write STEP_UP_FOR_RETRY for a step whose process is gone."""
    dg.DagsterEvent.step_retry_event(
        context, StepRetryData(error=error, seconds_to_wait=delay_s or None)
    )


def error_kind(event: dg.DagsterEvent) -> str | None:
    """Return the class name of the error of a STEP_FAILURE or STEP_UP_FOR_RETRY, if it has one."""
    error = getattr(event.event_specific_data, "error", None)
    return error.cls_name if error is not None else None


@contextlib.contextmanager
def _no_tail(_path: str, _stream: Any) -> Generator[tuple[None, None], None, None]:
    yield (None, None)


def write_compute_logs_without_mirror() -> None:
    """Start none of the four processes a step by which Dagster mirrors compute logs to stdout."""
    compute_logs.tail_to_stream = _no_tail


def output_files(instance: dg.DagsterInstance, run_id: str, captured: Any) -> dict[str, str]:
    """Return the local files a step prints to, by ``out`` and ``err``, from its LOGS_CAPTURED."""
    manager: Any = instance.compute_log_manager
    local = getattr(manager, "local_manager", manager)
    if not hasattr(local, "get_captured_local_path"):
        return {}
    key = manager.build_log_key_for_run(run_id, captured.event_specific_data.file_key)
    return {each: str(local.get_captured_local_path(key, each)) for each in ("out", "err")}


def write_compute_logs_to(instance: dg.DagsterInstance, directory: str) -> None:
    """Have an ephemeral instance write what its steps print, as others do."""
    instance._compute_log_manager = LocalComputeLogManager(directory)
