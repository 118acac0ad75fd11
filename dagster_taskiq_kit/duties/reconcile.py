"""The run reconciler: brings Dagster's runs and the broker's records together again.

Invariant: it writes only for runs that have no process and none is coming, and then it ends the
run, never a step. Everything it does is idempotent, so doing it too early or twice does no harm.
"""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence

import dagster as dg

from .. import dagster_seam as seam
from ..broker import readings, records
from ..broker.connection import SyncConnection
from ..broker.readings import Record
from ..broker.waiting_notes import WaitingNotes
from ..errors import BrokerError, TaskiqKitError, WaitedTooLong
from ..health.findings import start_worker
from ..health.snapshot import read_snapshot
from ..inline_runs import launched_inline
from ..messages import run_task_id
from ..run_submission import RunSubmission
from ..settings import TaskiqSettings
from ..states import OWNED, TERMINAL, State

logger = logging.getLogger(__name__)

EVERY_S = 10.0
#: How long a run may be STARTING without a record before it is submitted for its launcher.
_UNSUBMITTED_S = 30.0
#: How long the processes of a run that is over, or is being cancelled, may take to leave.
_LEAVING_S = 10.0
_PAGE = 500
_STATUS = dg.DagsterRunStatus


class Reconcile:
    """One worker's part in reconciling; in each round one of them does it.

    Args:
        instance: The Dagster instance.
        settings: The deployment.
        worker_id: This worker.
        launches: Whether the instance's own launcher is ours: only then its runs are ours to
            submit, fail and cancel.
    """

    def __init__(
        self,
        instance: dg.DagsterInstance,
        settings: TaskiqSettings,
        worker_id: str,
        *,
        launches: bool,
    ) -> None:
        self._instance = instance
        self._settings = settings
        self._worker_id = worker_id
        self._launches = launches
        self._broker = SyncConnection(settings)
        self._submission = RunSubmission(instance, self._broker, settings)

    def tick(self) -> None:
        """Reconcile once, if it is this worker's turn.

        Raises:
            BrokerError: The broker did not answer.
        """
        turn = records.take_turn("reconcile", self._worker_id, EVERY_S * 0.9)
        if not self._broker.run(turn, give_up_s=0):
            return
        if self._launches:
            self._end_what_has_no_process()
            self._say_what_nobody_serves()
        self._stop_what_is_over()
        self._free_slots()

    # -- runs that are STARTING or CANCELING without a process

    def _end_what_has_no_process(self) -> None:
        filters = dg.RunsFilter(statuses=[_STATUS.STARTING, _STATUS.CANCELING])
        found_open = self._instance.get_run_records(filters, limit=_PAGE, ascending=True)
        open_runs = [entry for entry in found_open if not launched_inline(entry.dagster_run)]
        ids = [run_task_id(entry.dagster_run.run_id, 0) for entry in open_runs]
        found = readings.fetch_all(self._broker, ids)
        self._cancel_what_started_meanwhile()
        now_ms = readings.server_time_ms(self._broker)
        for entry, record in zip(open_runs, found.values(), strict=True):
            run, still_s = entry.dagster_run, time.time() - entry.update_timestamp.timestamp()
            try:
                if run.status is _STATUS.CANCELING:
                    self._cancel(run, still_s)
                elif record is None:
                    self._submit(run, still_s)
                elif record.state is State.QUEUED:
                    self._end_waiting(run, record, (now_ms - record.queued_at_ms) / 1000)
                else:
                    self._start_or_fail(run, record)
            except BrokerError:
                raise
            except TaskiqKitError as error:
                self._fail(run, str(error))

    def _cancel_what_started_meanwhile(self) -> None:
        """Cancel runs whose RUN_START came after RUN_CANCELING and hid it, and whose child died."""
        filters = dg.RunsFilter(statuses=[_STATUS.STARTED])
        started = self._instance.get_run_records(filters, limit=_PAGE, ascending=True)
        ids = [entry.dagster_run.run_id for entry in started]
        cancelled = readings.cancelled_runs(self._broker, ids)
        for entry in started:
            if entry.dagster_run.run_id in cancelled:
                self._cancel(entry.dagster_run, time.time() - entry.update_timestamp.timestamp())
        self._submit_resumes([each for each in ids if each not in cancelled])

    def _submit_resumes(self, run_ids: Sequence[str]) -> None:
        """Queue resumes that run monitoring has decided and the broker could not take then."""
        if readings.namespace_age_s(self._broker) < 2 * self._settings.lease_s:
            return  # it may have forgotten what workers execute, until they renew
        first = [run_task_id(run_id, 0) for run_id in run_ids]
        found = readings.fetch_all(self._broker, first)
        for run_id, record in zip(run_ids, found.values(), strict=True):
            if record is not None and record.state in OWNED | {State.QUEUED}:
                continue
            resume_no = self._instance.count_resume_run_attempts(run_id)
            if not resume_no or readings.fetch(self._broker, run_task_id(run_id, resume_no)):
                continue
            run = self._instance.get_run_by_id(run_id)
            if run is not None and run.status is _STATUS.STARTED:
                self._submission.submit(run, resume_no, type(self))

    def _submit(self, run: seam.DagsterRun, still_s: float) -> None:
        if still_s > _UNSUBMITTED_S:
            self._say(run, f"The run was not in the queue after {still_s:.0f} s; queueing it.")
            self._submission.submit(run, 0, type(self))

    def _start_or_fail(self, run: seam.DagsterRun, record: Record) -> None:
        reason = str(record.detail.get("reason", ""))
        state = record.state
        if state is State.LOST:
            revive = records.revive(record.task_id, reason, self._settings.outcome_ttl_s)
            state = self._broker.run(revive) or state
            if state is State.QUEUED:
                self._say(run, f"{reason} The run had not begun; it is handed out again.")
        if state in TERMINAL:
            again = record.deliveries > 1
            spent = f" It was handed out {record.deliveries} times." if again else ""
            self._fail(run, f"The run never began. {reason}{spent}")

    def _end_waiting(self, run: seam.DagsterRun, record: Record, waited_s: float) -> None:
        limit_s = self._settings.queue_wait_timeout_s
        if limit_s is not None and waited_s > limit_s:
            ttl_s = self._settings.outcome_ttl_s
            self._broker.run(records.cancel(run.run_id, whole_run=True, outcome_ttl_s=ttl_s))
            self._fail(run, str(WaitedTooLong("The run", record.queue, limit_s)))

    def _cancel(self, run: seam.DagsterRun, still_s: float) -> None:
        if still_s <= _LEAVING_S:
            return  # its launcher has ordered it, or the monitor is about to fail it
        cancel = records.cancel(
            run.run_id, whole_run=True, outcome_ttl_s=self._settings.outcome_ttl_s
        )
        done = self._broker.run(cancel)
        if not done.runs_ordered and self._is(run, run.status):
            self._instance.report_run_canceled(run)

    def _fail(self, run: seam.DagsterRun, sentence: str) -> None:
        if self._is(run, _STATUS.STARTING):
            self._instance.report_run_failed(run, sentence)

    def _is(self, run: seam.DagsterRun, status: dg.DagsterRunStatus) -> bool:
        """Return whether a run has this status now, and not only when it was read."""
        now = self._instance.get_run_by_id(run.run_id)
        return now is not None and now.status is status

    # -- queues without a worker

    def _say_what_nobody_serves(self) -> None:
        """Say in a run's log that it waits where nobody serves, and when it is served again."""
        snapshot = read_snapshot(self._broker, give_up_s=0)
        lanes = {queue.name: snapshot.unserved_lanes(queue) for queue in snapshot.queues}
        unserved = [
            (queue.name, lane)
            for queue in snapshot.queues
            for lane in lanes[queue.name]
            if queue.oldest_waiting_in(lane) > self._settings.unserved_note_s
        ]
        served = {name for name, without in lanes.items() if not without}
        served &= {queue.name for queue in snapshot.queues if snapshot.servers_of(queue.name)}
        noted = WaitingNotes(self._broker)
        for name, lane in unserved:
            for run_id in noted.waiting_runs(name, lane):
                if noted.note(run_id, name):
                    self._say_by_id(
                        run_id,
                        f"No live worker serves queue {name!r}, in which work of this run waits. "
                        f"{start_worker(name)}",
                    )
        for run_id, name in noted.all():
            if name in served and noted.forget(run_id, name):
                self._say_by_id(run_id, f"A worker serves queue {name!r} again.")

    def _say_by_id(self, run_id: str, sentence: str) -> None:
        run = self._instance.get_run_by_id(run_id)
        if run is not None and not run.is_finished:
            self._say(run, sentence)

    def _say(self, run: seam.DagsterRun, sentence: str) -> None:
        logger.warning("Run %s: %s", run.run_id, sentence, extra={"run_id": run.run_id})
        self._instance.report_engine_event(sentence, run, cls=type(self))

    # -- runs that are over

    def _stop_what_is_over(self) -> None:
        """Cancel messages of runs that are over in Dagster: their steps must not go on."""
        key = self._broker.keys.name("open_runs")
        open_ids = sorted(readings.members(self._broker, key))
        for run_id, over_s in self._over(open_ids):
            if over_s > _LEAVING_S:
                logger.warning("Run %s is over; what is left of it is stopped.", run_id)
                self._broker.run(
                    records.cancel(
                        run_id, whole_run=True, outcome_ttl_s=self._settings.outcome_ttl_s
                    )
                )

    def _free_slots(self) -> None:
        """Give back pool slots of runs that are over and have no process left."""
        storage = self._instance.event_log_storage
        if not storage.supports_global_concurrency_limits:
            return
        holding = sorted(storage.get_concurrency_run_ids())
        still_open = readings.members(self._broker, self._broker.keys.name("open_runs"))
        for run_id, over_s in self._over([each for each in holding if each not in still_open]):
            if over_s > _LEAVING_S:
                storage.free_concurrency_slots_for_run(run_id)

    def _over(self, run_ids: Sequence[str]) -> Iterator[tuple[str, float]]:
        """Yield those of the runs that are over, or deleted, and for how many seconds."""
        for start in range(0, len(run_ids), _PAGE):
            page = run_ids[start : start + _PAGE]
            found: Mapping[str, dg.RunRecord] = {
                entry.dagster_run.run_id: entry
                for entry in self._instance.get_run_records(dg.RunsFilter(run_ids=page))
            }
            for run_id in page:
                entry = found.get(run_id)
                if entry is None:
                    yield run_id, float("inf")
                elif entry.dagster_run.is_finished:
                    ended_s = entry.end_time or entry.update_timestamp.timestamp()
                    yield run_id, time.time() - ended_s
