"""What a child does with a message: the body of a run, a step or a task, and how it is told.

Invariant: only here does the body of a run, step or task begin, and only after the worker answered
``go`` for this message (``claimed -> running``). While a body executes, only its child writes
events of its step.
"""

import sys
import time
from collections.abc import Mapping
from typing import Any

import dagster as dg

from ...config.routing import old_tags_note
from ...dagster_internals import log_events, step_bodies
from ...dagster_internals import names as internals
from ...dagster_internals.code_locations import LoadedCode
from ...dagster_internals.first_questions import FirstAnswers, answer_first_questions
from ...dagster_internals.log_events import STEP_ENDS
from ...dagster_internals.planning import StepNotThere
from ...dagster_internals.postgres.pool import note_that_shard_exists
from ...dagster_internals.relayed_events import RelayedEvents
from ...vocabulary.errors import CodeError, NotInLoadedCode
from ...vocabulary.messages import Message, RunMessage, StepMessage, TaskMessage
from ...vocabulary.states import State
from ..place import Place
from ..warm.prepared_jobs import PreparedJobs
from .code_notes import warn, warn_of_other_code
from .event_sender import EventSender
from .protocol import Begin, Done, Go, Output, Prints, Runs, Start
from .usage import NOTHING, forget_peak, used_so_far
from .wire import Wire

#: An output is announced, then stored.
_OUTPUTS = {dg.DagsterEventType.STEP_OUTPUT, dg.DagsterEventType.HANDLED_OUTPUT}

#: Characters of an error that travel with the end of a message.
MOST_SAID = 65_536

_SETTLE_PAUSE_S = 0.1

Outcome = tuple[State, Mapping[str, Any]]


class NotAllowed(Exception):
    """The worker did not answer ``go``: the message is cancelled or somebody else's now."""


class BodyExecutor:
    """Executes messages in this process, one after the other.

    Args:
        code: The code location.
        prepared: Plans of its jobs.
        instance: The Dagster instance.
        relayed: What hands over the events of its steps, where the worker stores them.
        wire: To the fork server.
    """

    def __init__(
        self,
        code: LoadedCode,
        prepared: PreparedJobs,
        instance: dg.DagsterInstance,
        relayed: RelayedEvents,
        wire: Wire,
    ) -> None:
        self._code = code
        self._prepared = prepared
        self._instance = instance
        self._relayed = relayed
        self._wire = wire
        #: Says the events of its steps; None where they are stored here.
        self._sender: EventSender | None = None
        self._has_ended = False
        #: What this process had used when the last message ended.
        self._used_before = NOTHING

    def execute(self, message: Message, start: Start) -> bool:
        """Execute a message and say how it ended; False when this process had better leave."""
        self._has_ended = False
        forget_peak()
        try:
            outcome, detail = self._execute(message, start)
            self._end(outcome, detail)
            return outcome in (State.SUCCEEDED, State.FAILED)
        except NotAllowed:
            pass
        except (KeyboardInterrupt, internals.DagsterExecutionInterruptedError):
            self._end(State.CANCELLED, {"reason": "Interrupted."})
        except BaseException as error:  # noqa: BLE001  (the last word of this process)
            refused = isinstance(error, CodeError)
            info = internals.serializable_error_info_from_exc_info(sys.exc_info())
            reason = str(error) if refused else info.to_string()
            reason = fail_run(self._instance, message, reason)
            self._end(State.REFUSED if refused else State.CRASHED, {"reason": reason[-MOST_SAID:]})
        return False

    def _execute(self, message: Message, start: Start) -> Outcome:
        if isinstance(message, TaskMessage):
            self._wire.send(Begin())
            wait_for_go(self._wire)
            return _execute_task(message)
        with internals.capture_interrupts():
            internals.pop_captured_interrupt()  # of a message before this one
            self._wire.send(Begin())
            if isinstance(message, StepMessage) and start.relays:
                run = self._read_by_worker(message)
            else:
                # Read while the question is answered, so that the permission costs no time.
                run = self._instance.get_run_by_id(message.run_id)
                wait_for_go(self._wire)
            if isinstance(message, RunMessage) and message.settle_s:
                _settle(message.settle_s)
                run = self._instance.get_run_by_id(message.run_id)
            if run is None:
                reason = f"There is no run {message.run_id} in this instance."
                return State.REFUSED, {"reason": reason}
            job, place = self._code.job(message.code), Place(**start.place)
            if isinstance(message, RunMessage):
                return _execute_run(
                    self._instance, run, message, job, place, self._wire, self._code
                )
            return self._execute_step(message, run, job, place)

    def _read_by_worker(self, message: StepMessage) -> internals.DagsterRun | None:
        """Return the run, as its worker has read it; from here on the worker stores the events."""
        if self._sender is None:
            self._sender = EventSender(self._wire)
            self._relayed.begin(message.run_id, self._sender)
        go = wait_for_go(self._wire)
        self._sender.open()
        if not go.body:
            return self._instance.get_run_by_id(message.run_id)
        answers = FirstAnswers.of(go.body)
        answer_first_questions(self._instance, message.step_key, answers)
        return answers.run

    def _execute_step(
        self, message: StepMessage, run: internals.DagsterRun, job: Any, place: Place
    ) -> Outcome:
        code = self._code
        where = {**place.metadata(), "code": code.fingerprint}
        warn_of_other_code(self._instance, run, code, place, message.step_key)
        try:
            with step_bodies.saying_where_steps_run(str(place), where):
                return _execute_step(self._prepared, self._instance, run, message, job, self._wire)
        except StepNotThere:
            what = f"step {message.step_key!r} in job {message.code.job!r}"
            raise NotInLoadedCode(what, code.location, code.loaded_at_s) from None

    def _end(self, outcome: State, detail: Mapping[str, Any]) -> None:
        if self._sender is not None:
            self._sender.close()  # threads that the step has left may have more to say
        if not self._has_ended:
            self._has_ended = True
            used = used_so_far()
            told = used.since(self._used_before).data()
            self._used_before = used
            self._wire.send(Done(outcome.value, dict(detail), told))


def fail_run(instance: dg.DagsterInstance, message: Message | None, reason: str) -> str:
    """Say in the run's own log why it cannot be executed: nobody else would.

    Returns:
        The reason, with why the run could not be told, if it could not.
    """
    try:
        if isinstance(message, RunMessage):
            run = instance.get_run_by_id(message.run_id)
            if run is not None and not run.is_finished:
                instance.report_run_failed(run, reason)
    except Exception as also:  # noqa: BLE001  (what cannot be written is told all the same)
        return f"{reason}\nIts run could not be told: {also}"
    return reason


def wait_for_go(wire: Wire) -> Go:
    """Wait for the permission to begin.

    Raises:
        NotAllowed: It was not given.
    """
    packet = wire.receive()
    if not isinstance(packet, Go):
        raise NotAllowed
    return packet


def _execute_task(message: TaskMessage) -> Outcome:
    from .user_task import execute_task

    result = execute_task(message)
    if result.is_err:
        return State.FAILED, {"reason": f"{type(result.error).__name__}: {result.error}"}
    return State.SUCCEEDED, {}


def _settle(seconds: float) -> None:
    """Wait, unless this process is told to end."""
    until_s = time.monotonic() + seconds
    while time.monotonic() < until_s:
        if internals.check_captured_interrupt():
            raise internals.DagsterExecutionInterruptedError
        time.sleep(_SETTLE_PAUSE_S)


def _execute_step(
    prepared: PreparedJobs,
    instance: dg.DagsterInstance,
    run: internals.DagsterRun,
    message: StepMessage,
    job: Any,
    wire: Wire,
) -> Outcome:
    note_that_shard_exists(instance, run.run_id)
    outputs, end = 0, None
    for event in step_bodies.step_events(instance, run, message, job, prepared.find):
        if event.event_type is dg.DagsterEventType.STEP_OUTPUT:
            outputs += 1
        if message.tell_outputs and event.event_type in _OUTPUTS:
            wire.send(Output())
        if event.event_type is dg.DagsterEventType.LOGS_CAPTURED:
            wire.send(Prints(log_events.output_files(instance, run.run_id, event)))
        if event.event_type in STEP_ENDS:
            end = State.SUCCEEDED if event.is_step_success else State.FAILED
        if event.is_resource_init_failure:
            end = State.FAILED  # the orchestrator writes the end that belongs to it
    if end is not None:
        return end, {"outputs": outputs}
    if run.is_finished or run.status is dg.DagsterRunStatus.CANCELING:
        return State.CANCELLED, {"reason": f"The run is {run.status.value}."}
    return State.REFUSED, {
        "reason": f"Attempt {message.attempt} of step {message.step_key!r} has begun before.",
        "begun_before": True,
    }


def _why_not_executed(
    instance: dg.DagsterInstance, run: internals.DagsterRun, message: RunMessage, place: Place
) -> Outcome | None:
    status = dg.DagsterRunStatus
    if run.is_finished:
        return State.REFUSED, {"reason": f"The run is over: {run.status.value}."}
    if run.status is internals.SUSPENDED:
        return State.REFUSED, {"reason": "The run is suspended: it is executed when it is resumed."}
    if run.status is status.CANCELING:
        instance.report_run_canceled(run)
        return State.CANCELLED, {"reason": "The run was cancelled before it began."}
    if run.status is status.STARTED and message.resume_no == 0 and not place.handed_over:
        return State.REFUSED, {"reason": "The run is executing elsewhere."}
    return None


def _execute_run(
    instance: dg.DagsterInstance,
    run: internals.DagsterRun,
    message: RunMessage,
    job: Any,
    place: Place,
    wire: Wire,
    code: LoadedCode,
) -> Outcome:
    refused = _why_not_executed(instance, run, message, place)
    if refused is not None:
        return refused
    resume = run.status is dg.DagsterRunStatus.STARTED
    resumable = step_bodies.can_resume(job)
    if resume and not resumable:
        sentence = (
            f"The process of this run ended before the run did, and its executor "
            f"{step_bodies.executor_name(job)!r} cannot resume: it would execute finished steps "
            "again. Use taskiq_executor, or turn on run_retries and tag the run with "
            "dagster/max_retries."
        )
        instance.report_run_failed(run, sentence)
        return State.FAILED, {"reason": sentence}
    wire.send(Runs(resumable))
    metadata = {"code": dg.MetadataValue.text(code.fingerprint)}
    instance.report_engine_event(str(place), run, internals.EngineEventData(metadata=metadata))
    warn_of_other_code(instance, run, code, place)
    if not resumable:
        _note_old_tags(instance, run)  # else its orchestrator does
    _resume_nothing_that_is_over(instance)
    succeeded = step_bodies.execute_run(instance, message, job, resume=resume)
    after = instance.get_run_by_id(run.run_id)
    if after is not None and not after.is_finished and _was_cancelled(instance, run.run_id):
        # RUN_START was written after RUN_CANCELING: Dagster took the status back to STARTED.
        instance.report_run_canceled(after)
        return State.CANCELLED, {"reason": "The run was cancelled in the moment it began."}
    return (State.SUCCEEDED if succeeded else State.FAILED), {}


def _resume_nothing_that_is_over(instance: dg.DagsterInstance) -> None:
    """Have an interrupted run that has ended meanwhile, by its maximum runtime, not be resumed.

    Dagster asks whether it will be before it looks whether it has ended, and says so in its log.
    """
    will_resume = instance.run_will_resume

    def will_resume_what_is_open(run_id: str) -> bool:
        run = instance.get_run_by_id(run_id)
        return run is not None and not run.is_finished and will_resume(run_id)

    instance.run_will_resume = will_resume_what_is_open  # pyright: ignore[reportAttributeAccessIssue]


def _note_old_tags(instance: dg.DagsterInstance, run: internals.DagsterRun) -> None:
    note = old_tags_note(run.tags)
    if note is not None:
        warn(instance, run, note)


def _was_cancelled(instance: dg.DagsterInstance, run_id: str) -> bool:
    canceling = {dg.DagsterEventType.RUN_CANCELING}
    return bool(instance.get_records_for_run(run_id, of_type=canceling, limit=1).records)
