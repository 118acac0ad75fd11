"""What Dagster's own database tells of runs, daemons, ticks and connections, as metrics.

Invariant: everything is read through ``DagsterInstance``, with a bounded number of queries, in a
period of its own: a scrape never loads the database. What Dagster deletes makes no counter go
back, because these are gauges: what is open now, and what happened in the last hour.
"""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta, timezone

import dagster as dg

from ..config.settings import TaskiqSettings
from ..dagster_internals import names as internals
from ..dagster_internals.postgres.connection_limits import (
    most_database_connections,
    used_database_connections,
)
from ..exporter.families import Families
from .health_reading import read_health
from .loaded_locations import LoadedLocation
from .run_health import OPEN, Cause

STATUS = dg.DagsterRunStatus
ENDED = (STATUS.SUCCESS, STATUS.FAILURE, STATUS.CANCELED)
WINDOW = timedelta(hours=1)
#: Runs whose wait is looked at, newest first.
_MOST_STARTS = 500
#: Open runs of which the location is read, newest first; locations and pools that are told.
_MOST_OPEN = 1_000
_MOST_LOCATIONS = 100
_MOST_POOLS = 100
_RETRY_NUMBERS = [str(number) for number in range(1, 21)]
#: Sensors and schedules that are asked about, and failed ticks of each that are counted.
_MOST_INSTIGATORS = 200
_MOST_FAILURES = 100
_RETRY_TAG = "dagster/retry_number"


def read_dagster_metrics(
    instance: dg.DagsterInstance,
    settings: TaskiqSettings,
    locations: Callable[[], Sequence[LoadedLocation]] | None = None,
) -> Families:
    """Read Dagster's side once.

    Args:
        instance: The Dagster instance.
        settings: The deployment.
        locations: Loads the code locations; None to leave them out.
    """
    families = Families()
    _open_runs(families, instance, settings)
    _locations_of_runs(families, instance)
    _pools(families, instance)
    _recent_runs(families, instance)
    _daemons(families, instance)
    _connections(families, instance)
    for location in locations() if locations is not None else ():
        families.gauge("dagster_code_location_loaded", not location.error, location=location.name)
    return families


def _open_runs(families: Families, instance: dg.DagsterInstance, settings: TaskiqSettings) -> None:
    reading = read_health(settings, instance)
    runs = reading.runs
    assert runs is not None  # an instance was asked
    for finding in reading.of("runs"):
        families.gauge(
            "health_check_severity", finding.severity.rank, subject="runs", check=finding.check
        )
    for status in OPEN:
        families.gauge("dagster_runs", runs.counts.get(status.value, 0), status=status.value)
        age_s = runs.oldest_s.get(status.value, 0.0)
        families.gauge("dagster_oldest_run_age_seconds", age_s, status=status.value)
    for cause in Cause if runs.known else ():
        stuck = sum(each.cause is cause for each in runs.stuck)
        families.gauge("dagster_stuck_runs", stuck, cause=cause.value)


def _locations_of_runs(families: Families, instance: dg.DagsterInstance) -> None:
    opened = instance.get_runs(dg.RunsFilter(statuses=list(OPEN)), limit=_MOST_OPEN)
    origins = [run.remote_job_origin for run in opened]
    names = Counter({"": 0})
    names.update("" if origin is None else origin.location_name for origin in origins)
    for name, count in names.most_common(_MOST_LOCATIONS):
        families.gauge("dagster_location_runs", count, location=name)


def _pools(families: Families, instance: dg.DagsterInstance) -> None:
    storage = instance.event_log_storage
    if not storage.supports_global_concurrency_limits:
        return
    for pool in sorted(storage.get_concurrency_keys())[:_MOST_POOLS]:
        info = storage.get_concurrency_info(pool)
        families.gauge("dagster_pool_slots", info.slot_count, pool=pool, state="limit")
        families.gauge("dagster_pool_slots", info.active_slot_count, pool=pool, state="claimed")
        families.gauge("dagster_pool_pending_steps", info.pending_step_count, pool=pool)


def _recent_runs(families: Families, instance: dg.DagsterInstance) -> None:
    since = datetime.now(timezone.utc) - WINDOW
    for status in ENDED:
        ended = instance.get_runs_count(dg.RunsFilter(statuses=[status], updated_after=since))
        families.gauge("dagster_recent_runs", ended, status=status.value)
    retried = dg.RunsFilter(tags={_RETRY_TAG: _RETRY_NUMBERS}, created_after=since)
    families.gauge("dagster_recent_retried_runs", instance.get_runs_count(retried))
    begun = dg.RunsFilter(statuses=[STATUS.STARTED, STATUS.CANCELING, *ENDED], updated_after=since)
    waits_s = sorted(
        record.start_time - record.create_timestamp.timestamp()
        for record in instance.get_run_records(begun, limit=_MOST_STARTS)
        if record.start_time is not None and record.start_time >= since.timestamp()
    )
    for name, share in (("p50", 0.5), ("p95", 0.95), ("max", 1.0)):
        wait_s = waits_s[min(len(waits_s) - 1, int(share * len(waits_s)))] if waits_s else 0.0
        families.gauge("dagster_run_start_wait_seconds", max(0.0, wait_s), statistic=name)


def _daemons(families: Families, instance: dg.DagsterInstance) -> None:
    for daemon, heartbeat in instance.get_daemon_heartbeats().items():
        families.gauge(
            "dagster_daemon_heartbeat_timestamp_seconds", heartbeat.timestamp, daemon=daemon
        )
    failures = _failed_ticks(instance, time.time() - WINDOW.total_seconds())
    for instigator, count in failures.items():
        families.gauge("dagster_recent_tick_failures", count, instigator=instigator)


def _connections(families: Families, instance: dg.DagsterInstance) -> None:
    used, most = used_database_connections(instance), most_database_connections(instance)
    if used is not None and most is not None:
        families.gauge("dagster_database_connections", used)
        families.gauge("dagster_database_max_connections", most)


def _failed_ticks(instance: dg.DagsterInstance, since_s: float) -> Mapping[str, int]:
    """Return how many ticks of sensors and of schedules failed since then.

    One short query for each that is switched on, of at most so many: Dagster's own query for all of
    them at once (1.13.27) fails when it is given a status.
    """
    counts = {"sensor": 0, "schedule": 0}
    states = instance.all_instigator_state()
    on = [state for state in states if state.status is not internals.InstigatorStatus.STOPPED]
    for state in on[:_MOST_INSTIGATORS]:
        failed = instance.get_ticks(
            state.instigator_origin_id, state.selector_id,
            after=since_s, limit=_MOST_FAILURES, statuses=[internals.TickStatus.FAILURE],
        )  # fmt: skip
        kind = state.instigator_type.value.lower()
        counts[kind] = counts.get(kind, 0) + len(failed)
    return counts
