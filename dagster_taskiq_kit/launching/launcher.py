"""``TaskiqRunLauncher``: hands runs to taskiq workers, cancels them, and says how they are.

Invariant: a run's message has a deterministic id, so launching twice is launching once and nothing
needs to be remembered about it. Health is what the *record* says; an expired lease alone is not a
verdict. Nothing here needs a worker to answer.
"""

import contextlib
import logging
import time
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import dagster as dg
from typing_extensions import Self

from ..broker import readings, records, worker_cards
from ..broker.connection import SyncConnection
from ..broker.guards import check_broker
from ..broker.readings import Record
from ..config.celery_config import translate
from ..config.dagster_config import (
    celery_fields,
    given_limits,
    given_settings,
    limit_fields,
    settings_fields,
)
from ..config.settings import LIMITS, TaskiqSettings
from ..dagster_internals import names as internals
from ..dagster_internals.postgres.pool import instance_id
from ..host.first_seen import FirstSeen
from ..vocabulary.errors import BrokerError, BrokerUnavailable
from ..vocabulary.messages import run_task_id
from ..vocabulary.states import OWNED, State
from .inline_runs import InlineRuns, launched_inline
from .launched_code import LaunchedCode
from .run_submission import RunSubmission

logger = logging.getLogger(__name__)

#: Dagster's daemon checks runs one after another: it must not wait for an absent broker each time.
_HEALTH_GIVE_UP_S = 1.0
#: If more time passes between two looks at a run, how long it lacked a record is counted anew.
_MISSED_FOR_S = 3_600.0
_FAIL_FAST_S = 10.0
_TERMINATE_GIVE_UP_S = 0.1

_DEAD = {
    State.LOST: "Its worker was lost",
    State.CRASHED: "Its process crashed",
    State.REFUSED: "It was refused",
    State.CANCELLED: "It was cancelled",
    State.SUCCEEDED: "Its process ended, and the run is still open",
    State.FAILED: "Its process ended, and the run is still open",
}


class TaskiqRunLauncher(internals.RunLauncher, internals.ConfigurableClass):
    """Launches runs on taskiq workers.

    Configured in ``dagster.yaml``::

        run_launcher:
          module: dagster_taskiq_kit
          class: TaskiqRunLauncher
          config:
            url:
              env: DAGSTER_TASKIQ_URL

    Args:
        inst_data: Dagster's own record of the configuration.
        config: Settings by name; what is missing comes from the environment, then the defaults.

    Raises:
        ConfigurationError: A setting can never work.
    """

    #: Whether the configuration may be as dagster-celery's was.
    _tolerant = False

    def __init__(
        self, inst_data: internals.ConfigurableClassData | None = None, **config: Any
    ) -> None:
        self._inst_data = inst_data
        where = f"config of {type(self).__name__}"
        found = translate(config, where=where, tolerant=self._tolerant)
        for note in found.notes:
            logger.info("%s: %s", where, note)
        #: For executors, which take from here what they do not say.
        self.explicit_settings = given_settings(found.settings)
        self.explicit_limits = given_limits(found.settings)
        self.fallback_settings = found.fallback
        settings = {n: v for n, v in found.settings.items() if n not in LIMITS}
        self.settings = TaskiqSettings.resolve(settings, where=where, fallback=found.fallback)
        self._broker: SyncConnection | None = None
        self._away_until_s = 0.0
        self._launched_code = LaunchedCode()
        #: Since when runs have no record, by what this launcher was asked.
        self._missing = FirstSeen(_MISSED_FOR_S)
        super().__init__()

    # -- what Dagster's instance asks of a configurable class

    @property
    def inst_data(self) -> internals.ConfigurableClassData | None:
        """Dagster's own record of the configuration."""
        return self._inst_data

    @classmethod
    def config_type(cls) -> dict[str, dg.Field]:
        """Return the config schema: settings, and what executors take from here; each optional."""
        return {**settings_fields(), **limit_fields(), **celery_fields()}

    @classmethod
    def from_config_value(
        cls, inst_data: internals.ConfigurableClassData, config_value: Mapping[str, Any]
    ) -> Self:
        """Build the launcher from ``dagster.yaml``."""
        return cls(inst_data=inst_data, **config_value)

    @property
    def broker(self) -> SyncConnection:
        """The broker, checked once: server, instance and schema.

        Raises:
            BrokerError: It is away, refuses us, is unfit, or belongs to another instance.
            ConfigurationError: No url is configured.
        """
        if self._broker is None:
            broker = SyncConnection(self.settings)
            check_broker(broker, instance_id(self._instance))
            self._broker = broker
        return self._broker

    @cached_property
    def _inline(self) -> InlineRuns:
        return InlineRuns(self._instance)

    # -- launch and resume

    def launch_run(self, context: internals.LaunchRunContext) -> None:
        """Queue a run; with the broker away its log says so, and the reconciler queues it later.

        Raises:
            ConfigurationError: A tag can never work, or the run has no origin.
            BrokerError: The broker can never take it; Dagster fails the run with this sentence.
        """
        if self._inline.takes(context.dagster_run):
            self._inline.launch(context)
        else:
            tags = self._launched_code.tags(context)
            self._queue(context.dagster_run, resume_no=0, tags=tags)

    def resume_run(self, context: internals.ResumeRunContext) -> None:
        """Queue a run again, to go on where its log left off; errors as for :meth:`launch_run`."""
        self._queue(context.dagster_run, resume_no=context.resume_attempt_number or 1)

    @property
    def supports_resume_run(self) -> bool:
        """Runs can be resumed."""
        return True

    def _queue(
        self, run: internals.DagsterRun, resume_no: int, tags: Mapping[str, str] | None = None
    ) -> None:
        try:
            submission = RunSubmission(self._instance, self.broker, self.settings)
            submission.submit(run, resume_no, type(self), tags)
        except BrokerUnavailable as error:
            self._instance.report_engine_event(
                f"{error} The run is queued by a worker when that is over.",
                run,
                cls=type(self),
            )

    # -- termination

    def terminate(self, run_id: str) -> bool:
        """Cancel a run: what is queued ends now, what runs is ordered to stop.

        Returns:
            False when the run is over already.
        """
        run = self._instance.get_run_by_id(run_id)
        if run is None or run.is_finished:
            return False
        if launched_inline(run):
            return self._inline.terminate(run)
        if run.status is dg.DagsterRunStatus.CANCELING:
            # It was cancelled before, by a user or by the monitor of maximum runtimes. The monitor
            # fails the run when we return; a child that we stop now would write RUN_CANCELED over
            # that. The reconciler stops what is left, of whichever of the two it was.
            return True
        self._instance.report_run_canceling(run)
        cancel = records.cancel(run_id, whole_run=True)
        try:
            done = self.broker.run(cancel, give_up_s=_TERMINATE_GIVE_UP_S)
        except BrokerUnavailable as error:
            self._instance.report_engine_event(
                f"{error} The run is cancelled when it is back.", run, cls=type(self)
            )
            return True
        if not done.runs_ordered:
            # No child of the run lives that could say so itself.
            self._instance.report_run_canceled(run)
        return True

    # -- health

    @property
    def supports_check_run_worker_health(self) -> bool:
        """Dagster's run monitoring may ask how a run is."""
        return True

    def check_run_worker_health(self, run: internals.DagsterRun) -> internals.CheckRunHealthResult:
        """Say how the process of a run is, from its record alone.

        Raises:
            BrokerUnavailable: The broker is away: nothing is known. (Dagster would resume a run on
                UNKNOWN.)
        """
        if launched_inline(run):
            return internals.CheckRunHealthResult(
                internals.WorkerStatus.RUNNING, "Its code server executes it; it is in no queue."
            )
        resumes = self._resumes(run.run_id)
        record = self._latest_record(run.run_id, resumes)
        status = internals.WorkerStatus
        if resumes and (record is None or record.task_id != run_task_id(run.run_id, resumes)):
            # Run monitoring decided it and the broker could not take it then. Were it dead, the
            # next attempt would be spent on the same outage.
            return internals.CheckRunHealthResult(
                status.RUNNING, f"Resume {resumes} is to be queued by a worker's reconciler."
            )
        if record is None:
            return self._without_record(run.run_id)
        self._missing.look_at(run.run_id, holds=False)
        if record.state is State.CANCELLED:
            # Nobody is left to say so; the monitor sees that the status has changed.
            self._instance.report_run_canceled(run)
        if record.state in _DEAD:
            reason = record.detail.get("reason", "")
            return internals.CheckRunHealthResult(
                status.FAILED,
                f"{_DEAD[record.state]}. {reason}".strip(),
                run_worker_id=record.task_id,
            )
        return internals.CheckRunHealthResult(
            status.RUNNING, self._whereabouts(record), run_worker_id=record.task_id
        )

    def _without_record(self, run_id: str) -> internals.CheckRunHealthResult:
        """Say how a run is that has no record: a broker that forgot it is told again soon."""
        young_s = 2 * self.settings.lease_s
        missing_s = self._missing.look_at(run_id, holds=True)
        age_s = readings.namespace_age_s(self.broker, _HEALTH_GIVE_UP_S)
        # An age below 0 is of a clock that was set back since: it says nothing.
        if missing_s < young_s or 0 <= age_s < young_s:
            return internals.CheckRunHealthResult(
                internals.WorkerStatus.RUNNING, f"No record; it is missed for {missing_s:.0f} s."
            )
        return internals.CheckRunHealthResult(
            internals.WorkerStatus.FAILED, "The broker has no record of this run."
        )

    def get_run_worker_debug_info(
        self,
        run: internals.DagsterRun,
        include_container_logs: bool | None = True,  # noqa: ARG002, FBT002  (Dagster's signature)
    ) -> str | None:
        """Return what the broker knows of a run's process, for Dagster's UI and logs."""
        if launched_inline(run):
            return "Its code server executes it; it is in no queue."
        try:
            record = self._latest_record(run.run_id, self._resumes(run.run_id))
        except BrokerError as error:
            return str(error)
        if record is None:
            return "The broker has no record of this run."
        return f"{record.task_id}: {self._whereabouts(record)} {record.detail or ''}".rstrip()

    def _whereabouts(self, record: Record) -> str:
        if record.state is State.QUEUED:
            return f"Waiting in queue {record.queue!r} (priority {record.band})."
        whereabouts = f"{record.state.value.capitalize()} on worker {record.worker}"
        if record.worker and record.state in OWNED:
            seen = worker_cards.last_seen(self.broker, record.worker)
            if seen is not None:
                whereabouts += f" (host {seen.card.host}, pid {seen.card.pid})"
                if seen.silent_s > self.settings.lease_s:
                    whereabouts += f", which was not heard for {seen.silent_s:.0f} s"
        return whereabouts + "."

    def _latest_record(self, run_id: str, resumes: int) -> Record | None:
        """Return the record of the newest run message of a run that was resumed so often."""

        def read() -> Record | None:
            latest = None
            for resume_no in range(resumes + 1):
                task_id = run_task_id(run_id, resume_no)
                fields = broker.client.hgetall(broker.keys.name("record", task_id))
                latest = readings.read_record(task_id, fields) or latest
            return latest

        if time.monotonic() < self._away_until_s:
            raise BrokerUnavailable(
                self.settings.require_url(), "it did not answer a moment ago; trying again soon."
            )
        try:
            broker = self.broker
            return broker.retrying(read, give_up_s=_HEALTH_GIVE_UP_S)
        except BrokerUnavailable:
            self._away_until_s = time.monotonic() + _FAIL_FAST_S
            raise

    def _resumes(self, run_id: str) -> int:
        return int(self._instance.count_resume_run_attempts(run_id))

    def dispose(self) -> None:
        """Close the connection to the broker."""
        if "_inline" in self.__dict__:
            self._inline.dispose()
        if self._broker is not None:
            with contextlib.suppress(OSError):
                self._broker.close()
            self._broker = None
