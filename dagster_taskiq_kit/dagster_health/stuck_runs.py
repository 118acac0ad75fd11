"""``taskiq_stuck_run_sensor``: says of each stuck run why, and by policy gets it going or ends it.

Invariant: an action is done once for each run, attempt and cause: the tag that tells so is written
first. What Dagster's run monitoring does anyway is left to it while it is switched on.
"""

import logging
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any, cast

import dagster as dg

from ..broker import readings, records
from ..broker.connection import SyncConnection
from ..config.settings import TaskiqSettings
from ..dagster_internals import names as internals
from ..health.snapshot import read_snapshot
from ..launching.launcher import TaskiqRunLauncher
from ..vocabulary.errors import BrokerError, ConfigurationError
from ..vocabulary.seconds import check_seconds
from ..vocabulary.states import OWNED
from ..vocabulary.tags import STUCK_ACTION_TAG
from ..vocabulary.wording import counted
from .health_reading import GIVE_UP_S, completed_by_environment, read_health
from .run_health import STATUS, Cause, StuckRun, stuck_mark

logger = logging.getLogger(__name__)

#: Runs that are acted upon in one tick.
MOST_ACTIONS = 20
_MAX_RETRIES_TAG = "dagster/max_retries"


class StuckRunPolicy(str, Enum):
    """What is done about a stuck run."""

    REPORT = "report"
    RESUME = "resume"
    CANCEL = "cancel"
    RE_EXECUTE = "re_execute"


def build_taskiq_stuck_run_sensor(
    settings: TaskiqSettings | None = None,
    *,
    policy: StuckRunPolicy | str = StuckRunPolicy.REPORT,
    name: str = "taskiq_stuck_run_sensor",
    minimum_interval_seconds: int = 60,
    no_progress_s: float | None = None,
    default_status: dg.DefaultSensorStatus = dg.DefaultSensorStatus.STOPPED,
) -> dg.SensorDefinition:
    """Build the sensor that finds stuck runs, says why in their logs, and acts by policy.

    Args:
        settings: The deployment; default what the environment says.
        policy: ``report`` says it in the run's log. ``resume`` also queues a run again that nobody
            executes, to go on where its log left off; it counts as a resume attempt. ``cancel``
            terminates the run. ``re_execute`` fails it so that Dagster's run retries begin it anew.
        name: Name of the sensor.
        minimum_interval_seconds: How often it looks.
        no_progress_s: How long a run with a live worker may say nothing; None for no limit.
        default_status: Whether it runs without being switched on.

    Raises:
        ConfigurationError: There is no such policy, or a number of seconds can never work.
    """
    settings = settings or TaskiqSettings.resolve()
    check_seconds(minimum_interval_seconds, "minimum_interval_seconds", least=0)
    if no_progress_s is not None:
        check_seconds(no_progress_s, "no_progress_s")
    try:
        chosen = StuckRunPolicy(policy)
    except ValueError:
        known = ", ".join(each.value for each in StuckRunPolicy)
        raise ConfigurationError(
            f"There is no policy {policy!r} for stuck runs: use one of {known}.", "policy"
        ) from None

    @dg.sensor(
        name=name,
        minimum_interval_seconds=minimum_interval_seconds,
        default_status=default_status,
        description=f"Finds runs that do not get on by themselves (policy: {chosen.value}).",
    )
    def stuck_run_sensor(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        found_settings = completed_by_environment(settings)
        try:
            found = read_health(found_settings, context.instance, no_progress_s=no_progress_s)
        except ConfigurationError as error:
            return dg.SkipReason(str(error))
        if found.runs is None or not found.runs.known:
            return dg.SkipReason("The broker does not answer: nothing is known of stuck runs.")
        hasty = found_settings.model_copy(update={"give_up_s": GIVE_UP_S})
        connection = SyncConnection(hasty)
        try:
            acting = StuckRunActions(context.instance, connection, chosen)
            done = [said for each in found.runs.stuck if (said := acting.act(each))]
        except BrokerError as error:
            return dg.SkipReason(f"{error} The rest follows when it is back.")
        finally:
            connection.close()
        stuck = counted(len(found.runs.stuck), "run")
        return dg.SkipReason(f"Stuck: {stuck}. {' '.join(done)}".strip())

    return stuck_run_sensor


class StuckRunActions:
    """The actions of one tick.

    Args:
        instance: The Dagster instance.
        connection: The broker.
        policy: What is done about a stuck run.
    """

    def __init__(
        self, instance: dg.DagsterInstance, connection: SyncConnection, policy: StuckRunPolicy
    ) -> None:
        self._instance = instance
        self._broker = connection
        self._policy = policy
        self._left = MOST_ACTIONS

    def act(self, stuck: StuckRun) -> str:
        """Act on one stuck run, unless that was done; returns what was done, or ''.

        Raises:
            BrokerError: The broker went away.
        """
        action, how = self._choose(stuck)
        mark = action.value + stuck_mark(stuck.run, stuck.cause, stuck.resumes)
        run = self._instance.get_run_by_id(stuck.run.run_id)
        if run is None or run.is_finished or self._left <= 0:
            return ""
        marks = [each for each in run.tags.get(STUCK_ACTION_TAG, "").split(",") if each]
        if mark in marks:
            return ""
        self._left -= 1
        self._instance.add_run_tags(run.run_id, {STUCK_ACTION_TAG: ",".join([*marks, mark])})
        self._say(run, f"This run is stuck: {stuck.sentence} {stuck.remedy}")
        try:
            how(run, stuck)
        except BrokerError:
            # It is done in a later tick, when the broker is back.
            self._instance.add_run_tags(run.run_id, {STUCK_ACTION_TAG: ",".join(marks)})
            raise
        logger.warning("Run %s is stuck (%s): %s", run.run_id, mark, stuck.sentence)
        return f"{stuck.name}: {action.value}."

    def _choose(
        self, stuck: StuckRun
    ) -> tuple[StuckRunPolicy, Callable[[internals.DagsterRun, StuckRun], None]]:
        policy, report = StuckRunPolicy, (StuckRunPolicy.REPORT, self._nothing)
        if self._policy is policy.REPORT or self._monitor_acts_on(stuck):
            return report
        if stuck.cause is Cause.CANCELING:
            # It was cancelled already: to end that is all that any policy can do.
            return policy.CANCEL, self._cancel
        if self._policy is policy.CANCEL:
            return policy.CANCEL, self._cancel
        if self._policy is policy.RE_EXECUTE and self._instance.run_retries_enabled:
            return policy.RE_EXECUTE, self._re_execute
        resumable = stuck.cause is Cause.NO_PROCESS and stuck.run.status is STATUS.STARTED
        ours = isinstance(self._instance.run_launcher, TaskiqRunLauncher)
        if self._policy is policy.RESUME and resumable and ours:
            return policy.RESUME, self._resume
        return report

    def _monitor_acts_on(self, stuck: StuckRun) -> bool:
        """Return whether Dagster's run monitoring resumes or fails it without us."""
        return stuck.cause is Cause.NO_PROCESS and self._instance.run_monitoring_enabled

    def _nothing(self, _run: internals.DagsterRun, _stuck: StuckRun) -> None:
        """Only say it."""

    def _resume(self, run: internals.DagsterRun, stuck: StuckRun) -> None:
        # The launcher needs no workspace to resume; the sensor has none.
        self._instance.resume_run(run.run_id, cast("Any", None), stuck.resumes + 1)

    def _cancel(self, run: internals.DagsterRun, _stuck: StuckRun) -> None:
        if run.status is not STATUS.CANCELING:
            self._instance.run_launcher.terminate(run.run_id)
            return
        self._stop_messages(run)
        if not self._executed_by_a_live_worker(run):
            self._instance.report_run_canceled(run)

    def _re_execute(self, run: internals.DagsterRun, stuck: StuckRun) -> None:
        self._stop_messages(run)
        if _MAX_RETRIES_TAG not in run.tags:
            self._instance.add_run_tags(run.run_id, {_MAX_RETRIES_TAG: "1"})
        self._instance.report_run_failed(
            run, f"{stuck.sentence} It is failed so that Dagster's run retries begin it anew."
        )

    def _stop_messages(self, run: internals.DagsterRun) -> None:
        self._broker.run(records.cancel(run.run_id, whole_run=True))

    def _executed_by_a_live_worker(self, run: internals.DagsterRun) -> bool:
        ids: Sequence[str] = readings.open_messages(self._broker, [run.run_id])[run.run_id]
        held = [record for record in readings.fetch_all(self._broker, ids).values() if record]
        workers = {record.worker for record in held if record.state in OWNED}
        live = {each.card.worker_id for each in read_snapshot(self._broker).live_workers}
        return bool(workers & live)

    def _say(self, run: internals.DagsterRun, sentence: str) -> None:
        self._instance.report_engine_event(sentence, run, cls=type(self))
