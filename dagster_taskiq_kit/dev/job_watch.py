"""Launches one job through the instance's launcher, and tells what happens to it.

Invariant: everything that is printed was read from the event log or from the task records; nothing
is assumed to have worked.
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import dagster as dg

from ..broker import readings
from ..broker.connection import SyncConnection
from ..host.process_group import wait_until
from ..orchestration.run_log import RunLog
from ..vocabulary.errors import BrokerError
from ..vocabulary.text_table import table

_POLL_S = 0.1
_MAX_TABLE_ROWS = 50


@dataclass(frozen=True)
class StepTrace:
    """What became of one attempt of a step.

    Args:
        step_key: The step.
        queue: Where it waited.
        worker: Who took it.
        waited_s: From submission to the claim.
        ran_s: From the permission to begin to the end.
        state: How it ended.
    """

    step_key: str
    queue: str
    worker: str
    waited_s: float
    ran_s: float
    state: str


class JobWatch:
    """Follows one run.

    Args:
        instance: The Dagster instance.
        run_id: The run.
        say: Prints one line.
        broker: Where it is looked up who executes a step; None to leave that out.
    """

    def __init__(
        self,
        instance: dg.DagsterInstance,
        run_id: str,
        say: Callable[[str], None],
        broker: SyncConnection | None = None,
    ) -> None:
        self._broker = broker
        self._began_s = time.monotonic()
        run = instance.get_run_by_id(run_id)
        plan_id = run.execution_plan_snapshot_id if run else None
        plan: Any = instance.get_execution_plan_snapshot(plan_id) if plan_id else None
        #: What the plan names; steps that a dynamic output makes are added when they are submitted.
        planned = plan.step_keys_to_execute if plan else ()
        self._steps = {step for step in planned if not step.endswith("[?]")}
        self._over: set[str] = set()
        self._instance = instance
        self._run_id = run_id
        self._say = say
        self._log = RunLog(instance, run_id)
        self._task_ids: dict[str, str] = {}
        self._results: list[str] = []
        self._failures: list[str] = []
        kinds = dg.DagsterEventType
        self._tellers: dict[dg.DagsterEventType, Callable[[dg.DagsterEvent], None]] = {
            kinds.STEP_WORKER_STARTING: self._note_task_id,
            kinds.STEP_START: lambda event: self._tell("begins", event),
            kinds.STEP_SUCCESS: lambda event: self._tell("done", event),
            kinds.STEP_SKIPPED: lambda event: self._tell("skipped", event),
            kinds.STEP_UP_FOR_RETRY: lambda event: self._tell("retries", event),
            kinds.STEP_FAILURE: self._tell_failed_step,
            kinds.RUN_FAILURE: self._note_failed_run,
            kinds.ASSET_CHECK_EVALUATION: self._note_check,
            kinds.ASSET_MATERIALIZATION: self._note_asset,
        }

    def follow(self, check: Callable[[], None], within_s: float) -> bool:
        """Tell each step as it begins and ends, until the run is over; True when it succeeded.

        Args:
            check: Called often; raises when it makes no sense to wait any longer.
            within_s: How long the run may take.
        """

        def over() -> bool:
            check()
            run = self._instance.get_run_by_id(self._run_id)
            finished = run is None or run.is_finished
            for event in self._log.new_events():
                teller = self._tellers.get(event.event_type)
                if teller is not None:
                    teller(event)
            return finished

        if not wait_until(over, within_s, _POLL_S):
            self._failures.append(f"The run is not over after {within_s:g} s.")
        run = self._instance.get_run_by_id(self._run_id)
        return run is not None and run.status is dg.DagsterRunStatus.SUCCESS

    def _tell(self, what: str, event: dg.DagsterEvent) -> None:
        """Say in one line when, what, where, and how far the run is."""
        step = str(event.step_key)
        if what in ("done", "skipped", "FAILED"):
            self._over.add(step)
        passed_s = time.monotonic() - self._began_s
        known = len(self._steps | self._over)
        worker = self._worker_of(step) if what == "begins" else ""
        place = f" on {worker}" if worker else ""
        self._say(
            f"{passed_s:7.1f} s  {what:<7} {step}{place}  [{len(self._over)} of {known} done]"
        )

    def _worker_of(self, step: str) -> str:
        """Return who executes a step, by its record; '' when the broker does not tell now."""
        task_id = self._task_ids.get(step)
        if self._broker is None or task_id is None:
            return ""
        with contextlib.suppress(BrokerError):
            record = readings.fetch(self._broker, task_id)
            return (record.worker or "").rpartition("-")[0] if record else ""
        return ""

    def _note_task_id(self, event: dg.DagsterEvent) -> None:
        metadata = getattr(event.event_specific_data, "metadata", {})
        if event.step_key:
            self._steps.add(event.step_key)
        if event.step_key and "task_id" in metadata:
            self._task_ids[event.step_key] = str(metadata["task_id"].value)

    def _tell_failed_step(self, event: dg.DagsterEvent) -> None:
        self._tell("FAILED", event)
        error = event.step_failure_data.error
        while error is not None and error.cause is not None:
            error = error.cause
        reason = error.message.strip() if error else event.message
        self._failures.append(f"{event.step_key}: {reason}")

    def _note_failed_run(self, event: dg.DagsterEvent) -> None:
        self._failures.append(event.message or "The run failed.")

    def _note_check(self, event: dg.DagsterEvent) -> None:
        self._results.append(_check_line(event.asset_check_evaluation_data))

    def _note_asset(self, event: dg.DagsterEvent) -> None:
        self._results.extend(_materialization_lines(event.materialization))

    @property
    def results(self) -> Sequence[str]:
        """What the run published: assets with their metadata, checks with their verdicts."""
        return self._results

    @property
    def failures(self) -> Sequence[str]:
        """Why the run failed."""
        return self._failures

    def traces(self, broker: SyncConnection) -> Iterator[StepTrace]:
        """Yield where each step ran, from the task records."""
        for key, task_id in self._task_ids.items():
            record = readings.fetch(broker, task_id)
            if record is None:
                continue
            claimed_ms = record.claimed_at_ms or record.queued_at_ms
            began_ms = record.began_at_ms or claimed_ms
            yield StepTrace(
                key,
                record.queue,
                (record.worker or "-").rpartition("-")[0] or "-",
                max(0, claimed_ms - record.queued_at_ms) / 1000,
                max(0, (record.ended_at_ms or began_ms) - began_ms) / 1000,
                record.state.value,
            )


def trace_table(traces: Sequence[StepTrace]) -> Sequence[str]:
    """Return a table of what ran where."""
    heads = ("STEP", "QUEUE", "WORKER", "WAITED", "RAN", "ENDED AS")
    rows = [
        (t.step_key, t.queue, t.worker, f"{t.waited_s:.3f} s", f"{t.ran_s:.3f} s", t.state)
        for t in traces
    ]
    return table(heads, rows)


def _check_line(evaluation: dg.AssetCheckEvaluation) -> str:
    numbers = ", ".join(
        f"{name} {value.value}" for name, value in evaluation.metadata.items() if _plain(value)
    )
    verdict = "passed" if evaluation.passed else f"FAILED ({evaluation.severity.value})"
    return f"check {evaluation.check_name}: {verdict} ({numbers})"


def _materialization_lines(materialization: dg.AssetMaterialization) -> Iterator[str]:
    yield f"asset {materialization.asset_key.to_user_string()}:"
    for name, value in materialization.metadata.items():
        if isinstance(value, dg.TableMetadataValue):
            heads = [column.name for column in value.schema.columns]
            rows = [
                [record.data.get(head) for head in heads]
                for record in value.records[:_MAX_TABLE_ROWS]
            ]
            yield f"  {name}"
            yield from (f"    {line}" for line in table(heads, rows))
            left = len(value.records) - len(rows)
            if left:
                yield f"    ... and {left} more {'row' if left == 1 else 'rows'}; the UI shows all."
        elif _plain(value):
            yield f"  {name}: {value.value}"


def _plain(value: dg.MetadataValue[Any]) -> bool:
    """Return whether a metadata value can stand in a line of text."""
    plain = (dg.IntMetadataValue, dg.FloatMetadataValue, dg.TextMetadataValue, dg.PathMetadataValue)
    return isinstance(value, plain)
