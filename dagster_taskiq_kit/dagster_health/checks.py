"""The health rules as asset checks: the same findings, by hand from the UI or from the sensor.

Invariant: a check never passes through the queue that it judges. Its op is tagged
``dagster-taskiq/inline``, so launcher and executor run it in the code server, also when no worker
lives and the broker is dead.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import dagster as dg

from ..config.settings import QueueObjective, TaskiqSettings
from ..health.findings import Finding, Severity, no_better_than, queue_subject, watched_queues
from ..health.rules import RULES
from ..health.snapshot import Snapshot
from ..vocabulary.tags import INLINE_TAG
from ..vocabulary.wording import first_few
from .assets import CoercibleToPrefix, subject_key, subjects
from .health_reading import HealthReading, completed_by_environment, read_health

_SEVERITY = {
    Severity.OK: dg.AssetCheckSeverity.WARN,
    Severity.WARN: dg.AssetCheckSeverity.WARN,
    Severity.ERROR: dg.AssetCheckSeverity.ERROR,
}
_MOST_ROWS = 50
_MIB = 1024 * 1024
_LOOKED_BACK = 20


def check_specs(
    chosen: Sequence[str], key_prefix: CoercibleToPrefix
) -> Sequence[dg.AssetCheckSpec]:
    """Return the checks of some subjects."""
    return [
        dg.AssetCheckSpec(name, asset=subject_key(subject, key_prefix), description=meaning)
        for subject in chosen
        for name, meaning in RULES[subject.partition("/")[0]].items()
    ]


def build_taskiq_health_checks(
    settings: TaskiqSettings | None = None, *, key_prefix: CoercibleToPrefix = "taskiq"
) -> dg.AssetChecksDefinition:
    """Build every health check of a deployment: broker, queues, workers and runs.

    Args:
        settings: The deployment, with an objective a queue; default what the environment says.
        key_prefix: First part of the keys of the assets that they check.
    """
    settings = settings or TaskiqSettings.resolve()
    return _checks("taskiq_health_checks", subjects(settings), settings, key_prefix)


def build_queue_depth_checks(
    queues: Mapping[str, QueueObjective] | None = None,
    *,
    settings: TaskiqSettings | None = None,
    key_prefix: CoercibleToPrefix = "taskiq",
) -> dg.AssetChecksDefinition:
    """Build the checks of queues alone: age, backlog, live workers, redeliveries, dead letters.

    Args:
        queues: Objectives by queue name; default those of the settings.
        settings: The deployment; default what the environment says.
        key_prefix: First part of the keys of the assets that they check.
    """
    settings = settings or TaskiqSettings.resolve()
    if queues is not None:
        settings = settings.model_copy(update={"queues": dict(queues)})
    names = sorted(queues) if queues is not None else watched_queues(settings)
    chosen = [queue_subject(name) for name in names]
    return _checks("taskiq_queue_depth_checks", chosen, settings, key_prefix)


def _checks(
    name: str, chosen: Sequence[str], settings: TaskiqSettings, key_prefix: CoercibleToPrefix
) -> dg.AssetChecksDefinition:
    by_key = {subject_key(subject, key_prefix): subject for subject in chosen}

    @dg.multi_asset_check(
        name=name,
        specs=check_specs(chosen, key_prefix),
        can_subset=True,
        op_tags={INLINE_TAG: "true"},
    )
    def health_checks(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
        reading = read_health(completed_by_environment(settings), context.instance)
        for key in context.selected_asset_check_keys:
            finding = _finding(reading, by_key[key.asset_key], key.name)
            if not finding.known:
                finding = no_better_than(finding, _last_severity(context.instance, key))
            yield dg.AssetCheckResult(
                asset_key=key.asset_key,
                check_name=key.name,
                passed=finding.ok,
                severity=_SEVERITY[finding.severity],
                description=finding.sentence,
                metadata=metadata(finding, reading.snapshot),
            )

    return health_checks


def _last_severity(instance: dg.DagsterInstance, key: dg.AssetCheckKey) -> Severity | None:
    """Return what the check said last; the newest entry may be the execution that asks."""
    storage: Any = instance.event_log_storage
    for entry in storage.get_asset_check_execution_history(key, limit=_LOOKED_BACK):
        event = entry.event.dagster_event if entry.event else None
        if event is not None and event.event_type is dg.DagsterEventType.ASSET_CHECK_EVALUATION:
            said = event.asset_check_evaluation_data
            bad = Severity.WARN if said.severity is dg.AssetCheckSeverity.WARN else Severity.ERROR
            return Severity.OK if said.passed else bad
    return None


def _finding(reading: HealthReading, subject: str, check: str) -> Finding:
    found = reading.by_check.get((subject, check))
    if found is not None:
        return found
    (absent,) = (each for each in reading.findings if each.check == "reachable")
    return Finding(
        subject, check, Severity.WARN, f"Not known: {absent.sentence}",
        "See the check `reachable` of the broker.", known=False,
    )  # fmt: skip


def evaluation(
    finding: Finding, snapshot: Snapshot | None, key_prefix: CoercibleToPrefix
) -> dg.AssetCheckEvaluation:
    """Return a finding as the evaluation of its check, for a report without a run."""
    return dg.AssetCheckEvaluation(
        asset_key=subject_key(finding.subject, key_prefix),
        check_name=finding.check,
        passed=finding.ok,
        severity=_SEVERITY[finding.severity],
        description=finding.sentence,
        metadata=metadata(finding, snapshot),
    )


def metadata(finding: Finding, snapshot: Snapshot | None) -> dict[str, Any]:
    """Return what to do, the workers where they belong, and the figures, in that order.

    Numbers are plotted by Dagster, so thresholds stand in words: constants draw flat lines.
    """
    found: dict[str, Any] = {"remedy": finding.remedy} if finding.remedy else {}
    if finding.subject == "workers" and snapshot is not None and snapshot.workers:
        found["workers"] = worker_table(snapshot)
    if finding.thresholds:
        found["thresholds"] = finding.thresholds
    return found | dict(finding.numbers)


def _in_short(task_id: str) -> str:
    """Return what a message is, for people: its kind, its step, and the short id of its run."""
    kind, _, rest = task_id.partition(":")
    if not rest:
        return f"task {task_id[:8]}"
    run_id, _, key_and_number = rest.partition(":")
    step = key_and_number.rpartition(":")[0]
    return f"{kind} {step} of {run_id[:8]}" if step else f"{kind} {run_id[:8]}"


def worker_table(snapshot: Snapshot) -> dg.TableMetadataValue:
    """Return the workers as a table."""
    rows = [
        dg.TableRecord(
            {
                "worker": worker.card.name,
                "state": worker.state,
                "host": worker.card.host,
                "slots": f"{worker.card.busy_slots}/{worker.card.slots}",
                "run slots": f"{worker.card.busy_run_slots}/{worker.card.run_slots}",
                "heard": f"{worker.silent_s:.0f} s ago",
                "queues": ", ".join(worker.card.queues),
                "code": ", ".join(worker.card.locations),
                "executes": ("" if worker.live or not worker.held else "not known; held ")
                + first_few([_in_short(each.task_id) for each in worker.held]),
                "done": worker.card.succeeded,
                "failed": worker.card.failed,
                "memory": f"{worker.card.memory_bytes / _MIB:.0f} MiB",
                "release": worker.card.version,
            }
        )
        for worker in snapshot.workers[:_MOST_ROWS]
    ]
    return dg.MetadataValue.table(rows)
