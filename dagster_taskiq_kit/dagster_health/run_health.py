"""What Dagster says of its runs, joined to a snapshot: which of them are stuck, and why.

Invariant: the runs are read first, then their records (the snapshot is older than both), then again
those runs that seem to have nobody; a run is called stuck only if both readings agree. Reading
changes nothing. What Dagster's database says of a time was stamped by whichever machine wrote it:
the broker's own stamps come first, a worker's clock is corrected by how far it is known to be off,
and a stamp from the future, which can only be wrong, keeps no run from being looked at.
"""

import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum

import dagster as dg

from ..broker import readings
from ..broker.connection import SyncConnection
from ..broker.guards import check_instance
from ..broker.readings import Record
from ..broker.waiting_notes import WaitingNotes
from ..config.settings import TaskiqSettings
from ..dagster_internals import names as internals
from ..dagster_internals.postgres.pool import instance_id
from ..health.findings import start_worker
from ..health.snapshot import Snapshot, WorkerReading
from ..launching.inline_runs import launched_inline
from ..launching.launcher import TaskiqRunLauncher
from ..vocabulary.messages import run_task_id
from ..vocabulary.states import OWNED, Kind, State
from ..vocabulary.tags import STUCK_ACTION_TAG
from ..vocabulary.wording import duration

STATUS = dg.DagsterRunStatus
#: Runs that somebody should execute, and those that nobody should yet.
ACTIVE = (STATUS.STARTING, STATUS.STARTED, STATUS.CANCELING)
WAITING = (STATUS.QUEUED, STATUS.NOT_STARTED)
#: Started, and without a process on purpose; no older Dagster has that status.
SUSPENDED = () if internals.SUSPENDED is None else (internals.SUSPENDED,)
OPEN = (*WAITING, *ACTIVE, *SUSPENDED)
#: Active runs that are looked at, oldest first; beyond that they are only counted.
MOST_RUNS = 500
#: Waiting and suspended ones of which the age is read, oldest first.
MOST_WAITING = 10
#: Stuck runs that are found in one reading: each costs a look into its log.
MOST_STUCK = 50
#: Leases after which a run whose process is gone is called stuck: others have resumed or failed it
#: by then, and a cancelled one has left.
GONE_FOR_LEASES = 4
#: Graces after which a cancelled run is called stuck, when that is longer.
CANCELING_FOR_GRACES = 3
#: Only runs that said nothing for so long have their log read for lost steps.
_QUIET_S = 120.0
#: By how much the clocks of a fleet may differ without being wrong.
_CLOCKS_DIFFER_S = 5.0
#: Runs whose log is looked at in one reading, the longest open first: the database has other work.
_MOST_LOGS = 50


class Cause(str, Enum):
    """Why a run is stuck."""

    UNSERVED = "unserved"
    CANCELING = "canceling"
    SILENT_WORKER = "silent_worker"
    NO_PROCESS = "no_process"
    LOST_STEP = "lost_step"
    NO_PROGRESS = "no_progress"


@dataclass(frozen=True)
class StuckRun:
    """One run that does not get on by itself.

    Args:
        run: The run.
        cause: Why.
        since_s: For how long at least.
        sentence: What was found.
        remedy: What to do.
        resumes: How often it was resumed: an action is done once for each.
    """

    run: internals.DagsterRun
    cause: Cause
    since_s: float
    sentence: str
    remedy: str
    resumes: int = 0

    @property
    def name(self) -> str:
        """The run's short id and its job, for people."""
        return f"{self.run.run_id[:8]} ({self.run.job_name})"


@dataclass(frozen=True)
class RunHealth:
    """Dagster's open runs at one moment.

    Args:
        counts: Open runs by status.
        oldest_s: Age of the oldest run in each status, since its last change.
        stuck: The stuck ones.
        looked_at: How many active runs were looked at; less than all of them when there are many.
        known: Whether the broker answered; without it only counts and ages are known.
    """

    counts: Mapping[str, int]
    oldest_s: Mapping[str, float]
    stuck: Sequence[StuckRun] = ()
    looked_at: int = 0
    known: bool = True

    @property
    def overlooked(self) -> int:
        """How many active runs were only counted."""
        active = sum(self.counts.get(status.value, 0) for status in ACTIVE)
        return max(0, active - self.looked_at)


@dataclass(frozen=True)
class _Open:
    run: internals.DagsterRun
    for_s: float
    #: By a clock that is ahead of ours: how long it is so, nobody knows.
    from_the_future: bool = False
    #: Messages of it that have not ended.
    messages: Sequence[str] = field(default_factory=list)


def read_run_health(
    instance: dg.DagsterInstance,
    connection: SyncConnection,
    snapshot: "Snapshot | None",
    *,
    no_progress_s: float | None = None,
) -> RunHealth:
    """Read Dagster's open runs and find those that are stuck.

    Args:
        instance: The Dagster instance.
        connection: The broker.
        snapshot: Queues and workers, read before the runs; None when the broker is away.
        no_progress_s: How long a run with a live worker may say nothing; None for no limit,
            because one step may take days.

    Raises:
        BrokerError: The broker went away meanwhile, or its namespace is another instance's.
    """
    now_s = time.time()
    # Those that somebody should execute come first: thousands may wait in Dagster's own queue.
    runs = [
        _open_for(entry, now_s)
        for statuses, most in (
            (ACTIVE, MOST_RUNS),
            (WAITING, MOST_WAITING),
            (SUSPENDED, MOST_WAITING),
        )
        if statuses
        for entry in instance.get_run_records(
            dg.RunsFilter(statuses=list(statuses)), limit=most, ascending=True
        )
    ]
    counts = {
        status.value: instance.get_runs_count(dg.RunsFilter(statuses=[status])) for status in OPEN
    }
    oldest_s = {
        status.value: max((each.for_s for each in runs if each.run.status is status), default=0.0)
        for status in OPEN
    }
    if snapshot is None:
        return RunHealth(counts, oldest_s, known=False)
    check_instance(connection, instance_id(instance))
    looking = _Looking(instance, connection, snapshot, no_progress_s)
    active = [each for each in runs if each.run.status in ACTIVE]
    stuck = list(itertools.islice(looking.stuck(active), MOST_STUCK))
    return RunHealth(counts, oldest_s, stuck, len(active))


def _open_for(entry: dg.RunRecord, now_s: float) -> _Open:
    for_s = now_s - entry.update_timestamp.timestamp()
    return _Open(entry.dagster_run, max(0.0, for_s), from_the_future=for_s < -_CLOCKS_DIFFER_S)


class _Looking:
    """One look at open runs."""

    def __init__(
        self,
        instance: dg.DagsterInstance,
        connection: SyncConnection,
        snapshot: Snapshot,
        no_progress_s: float | None,
    ) -> None:
        self._instance = instance
        self._broker = connection
        self._settings: TaskiqSettings = connection.settings
        self._snapshot = snapshot
        self._no_progress_s = no_progress_s
        self._logs_left = _MOST_LOGS
        self._gone_for_s = GONE_FOR_LEASES * self._settings.lease_s
        self._ours = isinstance(instance.run_launcher, TaskiqRunLauncher)

    def stuck(self, runs: Sequence[_Open]) -> Iterator[StuckRun]:
        runs = [each for each in runs if not launched_inline(each.run)]
        ids = readings.open_messages(self._broker, [each.run.run_id for each in runs])
        runs = [replace(each, messages=ids[each.run.run_id]) for each in runs]
        unserved = self._unserved()
        run_messages = [m for each in runs for m in each.messages if _is_run(m)]
        records = readings.fetch_all(self._broker, run_messages)
        for each in runs:
            found = self._look(each, unserved, records)
            if found is not None and self._still(each):
                yield found

    def _look(
        self,
        each: _Open,
        unserved: Mapping[str, str],
        records: Mapping[str, Record | None],
    ) -> StuckRun | None:
        queue = unserved.get(each.run.run_id)
        if each.run.status is STATUS.CANCELING:
            return self._canceling(each)
        if queue is not None:
            return self._found(
                each,
                Cause.UNSERVED,
                self._settings.unserved_note_s,
                f"Work of it waits in queue {queue!r}, from which no live worker takes any.",
                start_worker(queue),
            )
        if each.run.status in (STATUS.STARTING, STATUS.STARTED) and self._ours:
            record = next((records[m] for m in each.messages if records.get(m)), None)
            return self._executing(each, record)
        return None

    def _executing(self, each: _Open, record: Record | None) -> StuckRun | None:
        if record is None or record.state not in OWNED:
            waits = record is not None and record.state is State.QUEUED
            return None if waits else self._gone(each, record)
        worker = self._worker(record.worker)
        if worker is None or worker.live:
            return self._quiet(each, worker)
        if self._snapshot.live_workers or worker.silent_s < 2 * self._settings.lease_s:
            return None  # a live one rescues it
        return self._found(
            each, Cause.SILENT_WORKER, worker.silent_s,
            f"Its worker {record.worker} on {worker.card.host} is silent for "
            f"{duration(worker.silent_s)}, and no other worker is there to take its work over.",
            "Start a worker: any one rescues what a silent one holds.",
        )  # fmt: skip

    def _canceling(self, each: _Open) -> StuckRun | None:
        graces_s = CANCELING_FOR_GRACES * self._settings.cancel_grace_s
        cancelled_s = readings.cancelled_for_s(self._broker, each.run.run_id)
        for_s = each.for_s if cancelled_s is None else cancelled_s
        if for_s < max(self._gone_for_s, graces_s):
            resumes = self._instance.count_resume_run_attempts(each.run.run_id)
            if not _was_said(each, Cause.CANCELING, resumes):
                return None
        held = len(each.messages)
        return self._found(
            each,
            Cause.CANCELING,
            for_s,
            f"It is being cancelled for {duration(for_s)}; {held} of its messages have not ended.",
            "Start a worker: it ends what nobody executes. Or force its termination in the UI.",
        )

    def _gone(self, each: _Open, record: Record | None) -> StuckRun | None:
        resumes = self._instance.count_resume_run_attempts(each.run.run_id)
        if record is None:
            latest = run_task_id(each.run.run_id, resumes)
            record = readings.fetch(self._broker, latest)
        age_s = self._snapshot.namespace_age_s
        if record is None and (age_s is None or age_s < 2 * self._settings.lease_s):
            return None
        if record is not None and record.state in OWNED | {State.QUEUED}:
            return None
        gone_s = self._gone_for_s if each.from_the_future else each.for_s
        if record is not None and record.ended_at_ms is not None:
            gone_s = max(0.0, (self._snapshot.taken_at_ms - record.ended_at_ms) / 1000)
        if gone_s < self._gone_for_s and not _was_said(each, Cause.NO_PROCESS, resumes):
            return None
        reason = record.detail.get("reason", "") if record else ""
        said = f"its record says {record.state.value}" if record else "the broker has no record"
        return self._found(
            each,
            Cause.NO_PROCESS,
            gone_s,
            f"It is {each.run.status.value} and nobody executes it: {said}. {reason}".strip(),
            "Turn on run_monitoring, which resumes it, or terminate it.",
            resumes,
        )

    def _quiet(self, each: _Open, worker: WorkerReading | None) -> StuckRun | None:
        """Look into the log of a run with a live worker that has said nothing for long."""
        if self._logs_left <= 0:
            return None
        self._logs_left -= 1
        newest = self._instance.get_records_for_run(each.run.run_id, limit=1, ascending=False)
        quiet_s = each.for_s
        if newest.records:
            ahead_s = worker.clock_skew_s if worker is not None else 0.0
            written_s = newest.records[0].timestamp - ahead_s
            quiet_s = self._snapshot.taken_at_ms / 1000 - written_s
        if quiet_s > _QUIET_S and (missing := self._steps_without_record(each)):
            return self._found(
                each, Cause.LOST_STEP, quiet_s,
                f"Step {missing[0]!r} is in progress by its log, and the broker has no message of "
                "it.", "Terminate the run and execute it again from its failed steps.",
            )  # fmt: skip
        if self._no_progress_s is not None and quiet_s > self._no_progress_s:
            return self._found(
                each, Cause.NO_PROGRESS, quiet_s,
                f"Its worker lives, and its log says nothing for {duration(quiet_s)}.",
                "Look at what its steps do (py-spy dump), or terminate it.",
            )  # fmt: skip
        return None

    def _steps_without_record(self, each: _Open) -> Sequence[str]:
        started = self._instance.get_records_for_run(
            each.run.run_id, of_type=dg.DagsterEventType.STEP_WORKER_STARTED
        ).records
        ours = {
            entry.event_log_entry.step_key
            for entry in started
            if _was_taken_from_queue(entry.event_log_entry.dagster_event)
        }
        in_progress = {
            stats.step_key
            for stats in self._instance.get_run_step_stats(each.run.run_id)
            if stats.status is not None and stats.status.value == "IN_PROGRESS"
        }
        prefix = f"{Kind.STEP.value}:{each.run.run_id}:"
        executing = {
            message.removeprefix(prefix).rpartition(":")[0]
            for message in each.messages
            if message.startswith(prefix)
        }
        return sorted(step for step in ours & in_progress if step and step not in executing)

    def _still(self, each: _Open) -> bool:
        """Return whether a second reading of the run says the same as the first."""
        now = self._instance.get_run_by_id(each.run.run_id)
        return now is not None and now.status is each.run.status

    def _found(
        self,
        each: _Open,
        cause: Cause,
        since_s: float,
        sentence: str,
        remedy: str,
        resumes: int | None = None,
    ) -> StuckRun:
        if resumes is None:
            resumes = self._instance.count_resume_run_attempts(each.run.run_id)
        return StuckRun(each.run, cause, since_s, sentence, remedy, resumes)

    def _unserved(self) -> Mapping[str, str]:
        """Return the runs with work that waits where nobody serves, with the queue."""
        notes, found = WaitingNotes(self._broker), dict[str, str]()
        for queue in self._snapshot.queues:
            for lane in () if queue.paused else self._snapshot.unserved_lanes(queue):
                if queue.oldest_waiting_in(lane) > self._settings.unserved_note_s:
                    found |= dict.fromkeys(notes.waiting_runs(queue.name, lane), queue.name)
        return found

    def _worker(self, worker_id: str | None) -> WorkerReading | None:
        workers = self._snapshot.workers
        return next((w for w in workers if w.card.worker_id == worker_id), None)


def _was_taken_from_queue(event: dg.DagsterEvent | None) -> bool:
    data = event.event_specific_data if event else None
    return "queue" in getattr(data, "metadata", {})


def stuck_mark(run: internals.DagsterRun, cause: Cause, resumes: int) -> str:
    """Return what marks a run, in its tag, as one that was called stuck for a cause.

    Dagster copies tags to the runs that it retries: the mark names the run that it is about.
    """
    return f":{cause.value}:{resumes}:{run.run_id[:8]}"


def _was_said(each: _Open, cause: Cause, resumes: int) -> bool:
    """Return whether this run, in this attempt, was called stuck for this before.

    The tag that says so is a change of the run, which is not younger for that.
    """
    return stuck_mark(each.run, cause, resumes) in each.run.tags.get(STUCK_ACTION_TAG, "")


def _is_run(message: str) -> bool:
    return message.startswith(f"{Kind.RUN.value}:")
