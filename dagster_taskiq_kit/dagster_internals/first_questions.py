"""What a step asks Dagster's database before its body begins, asked for it by its worker.

Invariant: the answers are those that the step would have got, read after its message was claimed.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import dagster as dg

from .names import STEP_STATS_EVENT_TYPES, DagsterRun, deserialize_value, serialize_value
from .postgres.outages import impatience

#: So many runs are remembered; what is remembered of one is small.
_MOST_RUNS = 256


#: The run, and whether its log has anything of which Dagster makes a step's statistics.
_ASK = """
    SELECT run_body, status, EXISTS (
        SELECT 1 FROM event_logs WHERE run_id = %(run_id)s AND step_key = %(step_key)s
        AND dagster_event_type = ANY(%(types)s)
    ) FROM runs WHERE run_id = %(run_id)s
"""
_TYPES = [each.value for each in STEP_STATS_EVENT_TYPES]


@dataclass(frozen=True)
class FirstAnswers:
    """What a step gets to know.

    Args:
        run: Its run.
        stats: Dagster's statistics of the attempts of the step.
        load_data: What the run's plan says of how its code is to be loaded; None for nothing.
    """

    run: DagsterRun
    stats: Sequence[Any]
    load_data: Any

    @classmethod
    def of(cls, answers: bytes) -> "FirstAnswers":
        """Return what :meth:`FirstQuestions.ask` was answered."""
        said = json.loads(answers)
        load_data = said["load_data"]
        return cls(
            # The status in the body of a run may be an old one.
            deserialize_value(said["run"], DagsterRun).with_status(
                dg.DagsterRunStatus(said["status"])
            ),
            [deserialize_value(each) for each in said["stats"]],
            None if load_data is None else deserialize_value(load_data),
        )


class FirstQuestions:
    """Asks the database for steps.

    Args:
        instance: An instance with pooled connections, on PostgreSQL.
    """

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self._instance = instance
        self._storage: Any = instance.event_log_storage
        #: Of the plan of each run, which never changes, by the run's id.
        self._load_data: dict[str, str | None] = {}

    @classmethod
    def of(cls, instance: dg.DagsterInstance) -> "FirstQuestions | None":
        """Return them; None for an instance that has runs and events in two databases."""
        runs: Any = instance.run_storage
        events: Any = instance.event_log_storage
        return cls(instance) if runs._engine is events._engine else None

    def ask(self, run_id: str, step_key: str) -> bytes:
        """Ask for one step.

        Returns:
            What is for :meth:`FirstAnswers.of`; b"" when there is no such run.

        Raises:
            Exception: Whatever the storage raises when it cannot be read; at once.
        """
        with impatience():
            asked = {"run_id": run_id, "step_key": step_key, "types": _TYPES}
            with self._storage._connect() as connection:
                row = connection.exec_driver_sql(_ASK, asked).fetchone()
            if row is None:
                return b""
            body, status, has_begun = row
            stats = self._instance.get_run_step_stats(run_id, [step_key]) if has_begun else []
            said = {
                "run": body,
                "status": status,
                "stats": [serialize_value(each) for each in stats],
                "load_data": self._load_data_of(run_id, body),
            }
        return json.dumps(said).encode()

    def _load_data_of(self, run_id: str, body: str) -> str | None:
        if run_id not in self._load_data:
            if len(self._load_data) >= _MOST_RUNS:
                self._load_data.clear()
            self._load_data[run_id] = self._read_load_data(deserialize_value(body, DagsterRun))
        return self._load_data[run_id]

    def _read_load_data(self, run: DagsterRun) -> str | None:
        if not run.has_repository_load_data or run.execution_plan_snapshot_id is None:
            return None
        plan = self._instance.get_execution_plan_snapshot(run.execution_plan_snapshot_id)
        data = plan.repository_load_data
        # What only names the location tells nothing to a process that has it loaded.
        says_nothing = data is None or not (
            data.cacheable_asset_data or data.reconstruction_metadata or data.defs_state_info
        )
        return None if says_nothing else serialize_value(data)


def answer_first_questions(
    instance: dg.DagsterInstance, step_key: str, answers: FirstAnswers
) -> None:
    """Have an instance answer the first questions of a step without asking.

    Args:
        instance: The instance.
        step_key: The step.
        answers: The answers.
    """
    changed, run = instance, answers.run
    ask_stats, ask_plan = instance.get_run_step_stats, instance.get_execution_plan_snapshot

    def get_run_step_stats(run_id: str, step_keys: Sequence[str] | None = None) -> Sequence[Any]:
        _set(changed, "get_run_step_stats", ask_stats)
        if (run_id, list(step_keys or [])) == (run.run_id, [step_key]):
            return answers.stats
        return ask_stats(run_id, step_keys)

    def get_execution_plan_snapshot(snapshot_id: str) -> Any:
        _set(changed, "get_execution_plan_snapshot", ask_plan)
        if snapshot_id == run.execution_plan_snapshot_id:
            return SimpleNamespace(repository_load_data=answers.load_data)
        return ask_plan(snapshot_id)

    _set(changed, "get_run_step_stats", get_run_step_stats)
    if run.has_repository_load_data:
        _set(changed, "get_execution_plan_snapshot", get_execution_plan_snapshot)


def _set(instance: dg.DagsterInstance, method: str, function: Any) -> None:
    setattr(instance, method, function)
