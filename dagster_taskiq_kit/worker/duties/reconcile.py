"""The run reconciler: brings Dagster's runs and the broker's records together again.

Invariant: it writes only for runs that have no process and none is coming, and then it ends the
run, never a step. Everything it does is idempotent, so doing it too early or twice does no harm.
How long something is so, it knows from its own looks: what Dagster's database says was stamped by
other machines, whose clocks may be off.
"""

import logging
from collections.abc import Mapping, Sequence

import dagster as dg

from ...broker import readings, records
from ...broker.connection import SyncConnection
from ...broker.readings import Record
from ...broker.waiting_notes import WaitingNotes
from ...config.settings import TaskiqSettings
from ...dagster_internals import names as internals
from ...health.findings import start_worker
from ...health.snapshot import Snapshot, read_snapshot
from ...host.first_seen import FirstSeen
from ...launching.inline_runs import launched_inline
from ...launching.run_submission import RunSubmission
from ...vocabulary.errors import BrokerError, TaskiqKitError, WaitedTooLong
from ...vocabulary.log_actions import Action, about
from ...vocabulary.messages import run_task_id
from ...vocabulary.states import OWNED, TERMINAL, State
from .turns import Turn

logger = logging.getLogger(__name__)

EVERY_S = 10.0
#: How long a run is seen STARTING without a record before it is submitted for its launcher.
_UNSUBMITTED_S = 2 * EVERY_S
#: How long the processes of a run that is seen to be over, or cancelled, may take to leave.
_LEAVING_S = 0.9 * EVERY_S
#: If more time passes between two rounds, how long something was so is counted anew.
_PAUSE_S = 6 * EVERY_S
_PAGE = 500
_STATUS = dg.DagsterRunStatus


class Reconcile:
    """One worker's part in reconciling; the one whose turn it is does it.

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
        self._turn = Turn("reconcile", worker_id, EVERY_S)
        self._launches = launches
        self._broker = SyncConnection(settings)
        self._submission = RunSubmission(instance, self._broker, settings)
        #: Since when what it decides by is so.
        self._unsubmitted = FirstSeen(_PAUSE_S)
        self._cancelled = FirstSeen(_PAUSE_S)
        self._resumed = FirstSeen(_PAUSE_S)
        self._over = FirstSeen(_PAUSE_S)
        self._waits = FirstSeen(_PAUSE_S)
        self._waited_s: dict[tuple[str, int], float] = {}

    def tick(self) -> None:
        """Reconcile once, if it is this worker's turn.

        Raises:
            BrokerError: The broker did not answer.
        """
        if not self._broker.run(self._turn.ask(), give_up_s=0):
            return
        if self._launches:
            self._end_what_has_no_process()
            self._say_what_nobody_serves()
        self._end_what_is_over()

    # -- runs that are STARTING or CANCELING without a process

    def _end_what_has_no_process(self) -> None:
        filters = dg.RunsFilter(statuses=[_STATUS.STARTING, _STATUS.CANCELING])
        found_open = self._instance.get_run_records(filters, limit=_PAGE, ascending=True)
        open_runs = [entry for entry in found_open if not launched_inline(entry.dagster_run)]
        ids = [run_task_id(entry.dagster_run.run_id, 0) for entry in open_runs]
        found = readings.fetch_all(self._broker, ids)
        runs = [entry.dagster_run for entry in open_runs]
        canceling = [run for run in runs if run.status is _STATUS.CANCELING]
        self._cancel_what_started_meanwhile(canceling)
        rows = list(zip(runs, found.values(), strict=True))
        starting = [row for row in rows if row[0].status is _STATUS.STARTING]
        self._unsubmitted.look(run.run_id for run, record in starting if record is None)
        self._look_at_waits([record for _, record in starting if record is not None])
        for run, record in rows:
            try:
                if run.status is _STATUS.CANCELING:
                    self._cancel(run)
                elif record is None:
                    self._submit(run)
                elif record.state is State.QUEUED:
                    self._end_waiting(run, record)
                else:
                    self._start_or_fail(run, record)
            except BrokerError:
                raise
            except TaskiqKitError as error:
                self._fail(run, str(error))

    def _cancel_what_started_meanwhile(self, canceling: Sequence[internals.DagsterRun]) -> None:
        """Cancel runs whose RUN_START came after RUN_CANCELING and hid it, and whose child died."""
        filters = dg.RunsFilter(statuses=[_STATUS.STARTED])
        started = self._instance.get_run_records(filters, limit=_PAGE, ascending=True)
        ids = [entry.dagster_run.run_id for entry in started]
        cancelled = readings.cancelled_runs(self._broker, ids)
        hidden = [e.dagster_run for e in started if e.dagster_run.run_id in cancelled]
        self._cancelled.look((run.run_id, run.status) for run in [*canceling, *hidden])
        for run in hidden:
            self._cancel(run)
        self._submit_resumes([each for each in ids if each not in cancelled])

    def _submit_resumes(self, run_ids: Sequence[str]) -> None:
        """Queue resumes that run monitoring has decided and the broker could not take then."""
        first = [run_task_id(run_id, 0) for run_id in run_ids]
        found = readings.fetch_all(self._broker, first)
        rows = list(zip(run_ids, found.values(), strict=True))
        idle = [run_id for run_id, record in rows if not _is_open(record)]
        self._resumed.look(idle)
        for run_id in idle:
            # The broker may have forgotten what workers execute, until they renew.
            if self._resumed.for_s(run_id) < self._settings.lease_s:
                continue
            resume_no = self._instance.count_resume_run_attempts(run_id)
            if not resume_no or readings.fetch(self._broker, run_task_id(run_id, resume_no)):
                continue
            run = self._instance.get_run_by_id(run_id)
            if run is not None and run.status is _STATUS.STARTED:
                self._submission.submit(run, resume_no, type(self))

    def _submit(self, run: internals.DagsterRun) -> None:
        still_s = self._unsubmitted.for_s(run.run_id)
        if still_s >= _UNSUBMITTED_S:
            self._say(run, f"The run was not in the queue for {still_s:.0f} s; queueing it.")
            self._submission.submit(run, 0, type(self))

    def _start_or_fail(self, run: internals.DagsterRun, record: Record) -> None:
        reason = str(record.detail.get("reason", ""))
        state = record.state
        if state is State.LOST:
            revive = records.revive(record.task_id, reason)
            state = self._broker.run(revive) or state
            if state is State.QUEUED:
                self._say(run, f"{reason} The run had not begun; it is handed out again.")
        if state in TERMINAL:
            again = record.deliveries > 1
            spent = f" It was handed out {record.deliveries} times." if again else ""
            self._fail(run, f"The run never began. {reason}{spent}")

    def _look_at_waits(self, waiting: Sequence[Record]) -> None:
        """Take note of what waits, and for how long it did when that was first seen."""
        now_ms = readings.server_time_ms(self._broker)
        waits = [(each.task_id, each.queued_at_ms) for each in waiting]
        new = self._waits.look(waits)
        self._waited_s = {
            wait: max(0.0, (now_ms - wait[1]) / 1000) if wait in new else self._waited_s[wait]
            for wait in waits
        }

    def _end_waiting(self, run: internals.DagsterRun, record: Record) -> None:
        limit_s, wait = self._settings.queue_wait_timeout_s, (record.task_id, record.queued_at_ms)
        # What came since then is counted on this machine: the broker's clock may have been set.
        if limit_s is not None and self._waited_s[wait] + self._waits.for_s(wait) > limit_s:
            self._broker.run(records.cancel(run.run_id, whole_run=True))
            self._fail(run, str(WaitedTooLong("The run", record.queue, limit_s)))

    def _cancel(self, run: internals.DagsterRun) -> None:
        if self._cancelled.for_s((run.run_id, run.status)) < _LEAVING_S:
            return  # its launcher has ordered it, or the monitor is about to fail it
        cancel = records.cancel(run.run_id, whole_run=True)
        done = self._broker.run(cancel)
        if not done.runs_ordered and self._is(run, run.status):
            self._instance.report_run_canceled(run)

    def _fail(self, run: internals.DagsterRun, sentence: str) -> None:
        if self._is(run, _STATUS.STARTING):
            self._instance.report_run_failed(run, sentence)

    def _is(self, run: internals.DagsterRun, status: dg.DagsterRunStatus) -> bool:
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
        served &= {
            queue.name
            for queue in snapshot.queues
            if any(worker.state != "unready" for worker in snapshot.workers_of(queue.name))
        }
        noted = WaitingNotes(self._broker)
        for name, lane in unserved:
            for run_id in noted.waiting_runs(name, lane):
                if noted.note(run_id, name):
                    self._say_by_id(run_id, _unserved_in_words(name, snapshot))
        for run_id, name in noted.all():
            if name in served and noted.forget(run_id, name):
                self._say_by_id(run_id, f"A worker serves queue {name!r} again.")

    def _say_by_id(self, run_id: str, sentence: str) -> None:
        run = self._instance.get_run_by_id(run_id)
        if run is not None and not run.is_finished:
            self._say(run, sentence)

    def _say(self, run: internals.DagsterRun, sentence: str) -> None:
        said = about(Action.RECONCILED, run_id=run.run_id, job=run.job_name)
        logger.warning("Run %s: %s", run.run_id, sentence, extra=said)
        self._instance.report_engine_event(sentence, run, cls=type(self))

    # -- runs that are over

    def _end_what_is_over(self) -> None:
        """Stop messages of runs that are over in Dagster, and give back their pool slots."""
        key, storage = self._broker.keys.name("open_runs"), self._instance.event_log_storage
        with_messages = readings.members(self._broker, key)
        pools = storage.supports_global_concurrency_limits
        with_slots = storage.get_concurrency_run_ids() if pools else set[str]()
        over = self._which_are_over(sorted(with_messages | with_slots))
        self._over.look(over)
        left = [run_id for run_id in over if self._over.for_s(run_id) >= _LEAVING_S]
        for run_id in (run_id for run_id in left if run_id in with_messages):
            logger.warning(
                "Run %s is over; what is left of it is stopped.", run_id,
                extra=about(Action.RECONCILED, run_id=run_id),
            )  # fmt: skip
            self._broker.run(records.cancel(run_id, whole_run=True))
        still_open = readings.members(self._broker, key)
        for run_id in (run_id for run_id in left if run_id in with_slots - still_open):
            storage.free_concurrency_slots_for_run(run_id)

    def _which_are_over(self, run_ids: Sequence[str]) -> Sequence[str]:
        """Return those of the runs that are over, or deleted."""
        over: list[str] = []
        for start in range(0, len(run_ids), _PAGE):
            page = run_ids[start : start + _PAGE]
            found: Mapping[str, dg.RunRecord] = {
                entry.dagster_run.run_id: entry
                for entry in self._instance.get_run_records(dg.RunsFilter(run_ids=page))
            }
            over += [
                run_id
                for run_id in page
                if run_id not in found or found[run_id].dagster_run.is_finished
            ]
        return over


def _is_open(record: Record | None) -> bool:
    return record is not None and record.state in OWNED | {State.QUEUED}


def _unserved_in_words(queue: str, snapshot: Snapshot) -> str:
    """Return what a run's log says of a queue in which work of it waits and nobody takes it."""
    unready = [worker.card for worker in snapshot.workers_of(queue) if worker.state == "unready"]
    if unready:
        return (
            f"No worker takes work from queue {queue!r}, in which work of this run waits: worker "
            f"{unready[0].name} on {unready[0].host} is not ready "
            f"({unready[0].trouble.rstrip('.')}). Mend that; the run goes on then."
        )
    return (
        f"No live worker serves queue {queue!r}, in which work of this run waits. "
        f"{start_worker(queue)}"
    )
