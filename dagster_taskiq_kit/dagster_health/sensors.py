"""``taskiq_health_sensor``: reports health to Dagster without a run, on change and at intervals.

Invariant: it never raises for an absent broker (a sensor that raises leaves the last status green);
materializations come before evaluations; at most 20 events a tick, because each costs the daemon a
transaction. Only one sensor a namespace reports.
"""

import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import dagster as dg

from ..broker.connection import SyncConnection
from ..broker.watchers import Watch, take_watch
from ..config.settings import TaskiqSettings
from ..health.findings import Finding, Severity, summary, watched_queues
from ..health.hysteresis import Memory
from ..vocabulary.errors import BrokerError, ConfigurationError
from ..vocabulary.seconds import check_seconds
from .assets import CoercibleToPrefix, subject_key, subjects
from .checks import evaluation, worker_table
from .health_reading import HealthReading, completed_by_environment, read_health

logger = logging.getLogger(__name__)

MOST_EVENTS = 20
#: The lease of the reporting sensor, in ticks: another takes over after so many are missed.
_WATCH_TICKS = 4
#: Figures that change all the time are reported in every second tick.
_STALE_TICKS = 1.5

OnTransition = Callable[[Finding, Severity], None]


def build_taskiq_health_sensor(
    settings: TaskiqSettings | None = None,
    *,
    key_prefix: CoercibleToPrefix = "taskiq",
    name: str = "taskiq_health_sensor",
    minimum_interval_seconds: int = 30,
    report_interval_seconds: int = 300,
    no_progress_s: float | None = None,
    on_transition: OnTransition | None = None,
    default_status: dg.DefaultSensorStatus = dg.DefaultSensorStatus.STOPPED,
) -> dg.SensorDefinition:
    """Build the sensor that reports the health of broker, queues, workers and runs.

    Args:
        settings: The deployment, with an objective a queue; default what the environment says.
        key_prefix: First part of the keys of the assets that it reports on.
        name: Name of the sensor.
        minimum_interval_seconds: How often it looks.
        report_interval_seconds: After how long an unchanged verdict is reported again.
        no_progress_s: How long a run with a live worker may say nothing; None for no limit.
        on_transition: Called with a finding and the severity that it had before, when a verdict
            has changed: the place for your own alerts. What it raises is logged.
        default_status: Whether it runs without being switched on.

    Raises:
        ConfigurationError: A number of seconds can never work.
    """
    settings = settings or TaskiqSettings.resolve()
    watched = subjects(settings)
    check_seconds(minimum_interval_seconds, "minimum_interval_seconds", least=0)
    check_seconds(report_interval_seconds, "report_interval_seconds", least=0)
    if no_progress_s is not None:
        check_seconds(no_progress_s, "no_progress_s")

    @dg.sensor(
        name=name,
        minimum_interval_seconds=minimum_interval_seconds,
        default_status=default_status,
        description="Reports the health of the taskiq broker, its queues, workers and runs.",
    )
    def health_sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        memory = Memory.from_json(context.cursor)
        other = _watched_by_another(
            completed_by_environment(settings), context, minimum_interval_seconds, no_progress_s
        )
        if other is not None:
            said = f"{other} watches namespace {settings.namespace!r} already: this one is quiet."
            return dg.SensorResult(skip_reason=said, cursor=context.cursor)
        try:
            found = read_health(
                completed_by_environment(settings), context.instance, no_progress_s=no_progress_s
            )
        except ConfigurationError as error:
            return dg.SensorResult(skip_reason=str(error), cursor=context.cursor)
        now_s = time.time()
        # A queue that nobody declared has no asset, and is not remembered.
        found = replace(found, findings=[memory.no_better(each) for each in found.findings])
        ours = [finding for finding in found.findings if finding.subject in watched]
        for finding, before in memory.take(ours):
            _tell(on_transition, finding, before)
        due = memory.due(watched, now_s, report_interval_seconds)
        stale_s = _STALE_TICKS * minimum_interval_seconds
        events = list(_events(found, memory, due, key_prefix, now_s, watched, stale_s))
        return dg.SensorResult(
            skip_reason=summary(found.findings), asset_events=events, cursor=memory.to_json()
        )

    return health_sensor


def _watched_by_another(
    settings: TaskiqSettings,
    context: dg.SensorEvaluationContext,
    tick_s: int,
    no_progress_s: float | None,
) -> str | None:
    """Return who else reports on this namespace; taking the watch is also the heartbeat."""
    location = context.code_location_origin
    judging = {"shared_storage": settings.shared_storage, "no_progress_s": no_progress_s}
    promised = {name: settings.objective(name) for name in watched_queues(settings)}
    me = Watch(location.location_name if location else f"pid {os.getpid()}", context.sensor_name)
    with contextlib.suppress(BrokerError, ConfigurationError):
        # Without the broker nobody can tell: saying twice that it is away does no harm.
        with contextlib.closing(SyncConnection(settings)) as connection:
            holder = connection.run(
                take_watch(me, _WATCH_TICKS * tick_s, promised, judging), give_up_s=0
            )
        return None if holder == me else str(holder)
    return None


def _tell(on_transition: OnTransition | None, finding: Finding, before: Severity) -> None:
    logger.warning(
        "%s %s: %s -> %s. %s", finding.subject, finding.check, before.value,
        finding.severity.value, finding.sentence,
    )  # fmt: skip
    if on_transition is not None:
        try:
            on_transition(finding, before)
        except Exception:
            logger.exception("on_transition failed; health is reported all the same.")


def _events(
    found: HealthReading,
    memory: Memory,
    due: Sequence[str],
    key_prefix: CoercibleToPrefix,
    now_s: float,
    watched: Sequence[str],
    stale_s: float,
) -> Iterable[dg.AssetMaterialization | dg.AssetCheckEvaluation]:
    """Return what is to be reported in this tick: subjects that changed first, then the oldest."""
    left = MOST_EVENTS
    evaluations: list[dg.AssetCheckEvaluation] = []
    for subject in due:
        findings = [each for each in found.of(subject) if memory.is_settled(each)]
        if not findings or not _is_known(found, subject) or 1 + len(findings) > left:
            continue
        left -= 1 + len(findings)
        memory.reported(subject, findings, _figures(found, subject), now_s)
        yield dg.AssetMaterialization(
            subject_key(subject, key_prefix),
            description=" ".join(each.sentence for each in findings[:1]),
            metadata=_figures(found, subject),
        )
        evaluations += [evaluation(each, found.snapshot, key_prefix) for each in findings]
    for subject in memory.longest_unchanged(watched):
        # Figures of a verdict that stands: one event, so that nobody reads a backlog of yesterday.
        figures = _figures(found, subject)
        if not left or subject in due or not _is_known(found, subject):
            continue
        if memory.figures_changed(subject, figures, now_s, stale_s):
            left -= 1
            yield dg.AssetMaterialization(subject_key(subject, key_prefix), metadata=figures)
    yield from evaluations


def _is_known(found: HealthReading, subject: str) -> bool:
    """Return whether anything is known of a subject: without the broker little is."""
    return found.snapshot is not None or subject in ("redis", "runs")


def _figures(found: HealthReading, subject: str) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    if subject == "workers" and found.snapshot is not None and found.snapshot.workers:
        figures["workers"] = worker_table(found.snapshot)
    for finding in found.of(subject):
        figures |= finding.numbers
    return figures
