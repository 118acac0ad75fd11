"""The orchestrator: executes a run's plan by submitting steps and hearing how they end.

Invariant: the event log says what is true; the bell says when to look. The orchestrator writes a
step's terminal event only after it was told that the attempt has ended or was given up, and if the
log has none, so every attempt is closed exactly once (``closing.py``). It waits once a turn, for
whatever comes first: the bell, a signal, or the next moment at which there is something to do
without either.

It drives Dagster's ``ActiveExecution`` as the multiprocess executor does. What is emitted and how
retries, limits and pools behave follows ``StepDelegatingExecutor``, which is not the base: it
wakes by a sleep and cannot resume from a skip, a delayed retry or a full pool.
"""

import contextlib
import os
import time
from collections.abc import Iterator, Sequence

import dagster as dg

from ..broker import records
from ..broker.bells import Bell, Ring
from ..broker.connection import SyncConnection
from ..config.settings import TaskiqSettings
from ..dagster_internals import names as internals
from ..dagster_internals.log_events import STEP_ENDS
from ..dagster_internals.postgres.pool import pooled_connections
from ..dagster_internals.replayable_execution import ReplayableExecution
from ..host.wake_up import WakeUp
from ..vocabulary.errors import BrokerUnavailable
from ..vocabulary.states import State
from ..vocabulary.wording import counted
from .broker_outages import BrokerOutages
from .closing import Closing
from .flights import Flights, InFlight
from .limits import Limits
from .run_log import STEP_STARTS, RunLog
from .step_submission import StepSubmission
from .steps_usage import StepsUsage, in_words, tables
from .stored_outputs import StoredOutputs

#: How long a missed ring of the bell can cost.
SLOW_POLL_S = 10.0
_PROBE_S = 1.0
#: Steps that are submitted with one question to the broker. The first of them waits until all are
#: announced in the run's log.
_AT_ONCE = 20


class Orchestrator:
    """Executes one run's plan on the workers.

    Args:
        context: Dagster's orchestration context of the run.
        plan: What to execute.
        settings: The deployment.
        limits: What the run's executor config says.
    """

    def __init__(
        self,
        context: internals.PlanOrchestrationContext,
        plan: internals.ExecutionPlan,
        settings: TaskiqSettings,
        limits: Limits,
    ) -> None:
        self._context = context
        self._plan = plan
        self._settings = settings
        self._limits = limits
        self._run = context.dagster_run
        self._broker = SyncConnection(settings)
        self._submission = StepSubmission(
            context,
            settings,
            self._broker,
            limits,
            # An output can let a step begin before the step that made it has ended.
            tell_outputs=not limits.step_dependency_config.require_upstream_step_success,
        )
        self._bell = Bell(self._broker, self._run.run_id)
        self._log = RunLog(context.instance, self._run.run_id, self._say_stale)
        self._wake_up = WakeUp()
        self._check_at_s = time.monotonic() + SLOW_POLL_S
        self._outages = BrokerOutages(self._broker, self._run.run_id, self._wake_up, self._say)
        self._flights = Flights(self._broker, self._outages, self._run.run_id, settings)
        self._closing = Closing(context, limits, settings, self._known_state)
        self._stored = StoredOutputs(self._step)
        self._usage = StepsUsage(self._broker, self._run.run_id)
        self._active: ReplayableExecution

    def execute(self) -> Iterator[dg.DagsterEvent]:
        """Execute the plan; yields the run's events as they come into the log.

        Raises:
            DagsterExecutionInterruptedError: The run was interrupted; its steps were stopped first.
            ConfigurationError: A tag of the run or of a step can never work.
        """
        with (
            pooled_connections(self._context.instance),
            contextlib.closing(self._broker),
            contextlib.closing(self._bell),
            self._wake_up,
            internals.InstanceConcurrencyContext(self._context.instance, self._run) as pools,
            ReplayableExecution(
                self._plan,
                retry_mode=self._limits.retries,
                max_concurrent=self._limits.max_concurrent,
                tag_concurrency_limits=self._limits.tag_concurrency_limits,
                instance_concurrency_context=pools,
                step_dependency_config=self._limits.step_dependency_config,
                sort_key_fn=self._submission.urgency,
            ) as self._active,
        ):
            resumed = self._context.resume_from_failure
            self._submission.check_tags(self._plan, say=not resumed)
            yield from self._resume() if resumed else self._begin()
            try:
                while not self._active.is_complete:
                    if self._active.check_for_interrupts() or self._flights.run_is_cancelled():
                        yield from self._interrupt()
                        self._leave_what_is_over()
                        return
                    yield from self._round()
                    if not self._active.is_complete:
                        self._listen(self._patience_s())
                self._await_the_leaving()
                yield from self._read_log()
                self._say_usage()
                self._leave_what_is_over()
            except BaseException:
                self._stop_steps()
                raise

    def _leave_what_is_over(self) -> None:
        """Leave a run that others have ended as it is: its steps have failed because of that."""
        if not self._active.has_failures:
            return
        run = self._context.instance.get_run_by_id(self._run.run_id)
        if run is not None and run.is_finished:
            raise internals.DagsterExecutionInterruptedError(
                f"The run is over: {run.status.value}."
            )

    # -- beginning

    def _begin(self) -> Iterator[dg.DagsterEvent]:
        steps = counted(len(self._plan.step_keys_to_execute), "step")
        self._say(f"Executing {steps} on taskiq workers (orchestrator pid {os.getpid()}).")
        yield from ()

    def _resume(self) -> Iterator[dg.DagsterEvent]:
        """Bring the plan to where the log left off, and ask the broker about what is open."""
        self._say(f"Resuming on taskiq workers (orchestrator pid {os.getpid()}).")
        prior = list(self._log.new_entries())
        for entry in prior:
            self._usage.see(entry.event)
        yield from (entry.event for entry in prior)
        starts = {e.event.step_key: e.position for e in prior if e.event.event_type in STEP_STARTS}
        stored = (
            (event, entry.timestamp_s)
            for entry in prior
            for event in self._stored.pass_on(entry.event)
        )
        for step in self._active.replay(stored):
            flight = self._flights.begin(step, self._attempt(step), starts.get(step.key, 0))
            if not self._flights.look_at_record(flight) and not self._log.has_begun(step.key):
                self._hand_out([flight])

    # -- one turn

    def _round(self) -> Iterator[dg.DagsterEvent]:
        """Take in what happened, then submit what may begin."""
        # In this order: what a record says of an end, the log says before it.
        self._check_records()
        yield from self._read_log()
        for flight in self._flights.rung():
            yield from self._read_again(flight)
        if not self._flights.run_is_cancelled():  # else what its steps did is no failure of theirs
            self._closing.close_without_end(self._flights.rung())
        if self._flights.closing():
            # What we wrote rings no bell.
            yield from self._read_log()
        # Skipped and abandoned steps are written here and come back with the log.
        list(self._active.plan_events_iterator(self._context))
        position = self._log.position
        self._hand_out(
            [
                self._flights.begin(step, self._attempt(step), position)
                for step in self._active.get_steps_to_execute()
            ]
        )
        list(self._active.concurrency_event_iterator(self._context))

    def _patience_s(self) -> float:
        """Return how long there is nothing to do unless something happens."""
        due_s = self._active.due_in_s()
        return SLOW_POLL_S if due_s is None else min(due_s, SLOW_POLL_S)

    def _listen(self, patience_s: float) -> None:
        try:
            rings = self._bell.wait(patience_s, self._wake_up.descriptors())
        except BrokerUnavailable as error:
            self._outages.wait_out(error)
            return
        self._wake_up.clear()
        self._flights.hear(rings)

    def _await_the_leaving(self) -> None:
        """Wait until the hooks of the last steps have run, so that the run ends after them."""
        while self._flights.any_leaves:
            if self._active.check_for_interrupts():
                self._stop_steps()
                return
            self._listen(_PROBE_S)
            self._flights.forget_gone()

    # -- the log

    def _read_again(self, flight: InFlight) -> Iterator[dg.DagsterEvent]:
        """Take in what the log's position has passed since an attempt began."""
        for event in self._log.missed_events(flight.step.key, flight.position):
            yield event
            self._handle(event)

    def _read_log(self) -> Iterator[dg.DagsterEvent]:
        for event in self._log.new_events():
            flight = self._flights.of(event.step_key)
            if flight is not None and event.event_type in STEP_ENDS:
                # Its end must not be handled before the outputs that precede it, and until the bell
                # rang, nobody has said how many there are.
                told = flight.ring.detail.get("outputs") if flight.ring else None
                if told is None or flight.outputs < told:
                    yield from self._read_again(flight)
            yield event
            self._handle(event)

    def _handle(self, event: dg.DagsterEvent) -> None:
        """Give one event of the log to the state machine."""
        self._usage.see(event)
        flight = self._flights.of(event.step_key)
        if event.event_type in STEP_ENDS:
            if flight is None:
                self._say_stale(event)
                return
            self._pass_on(event)
            self._flights.end(flight)
        elif flight is None:
            return
        elif event.event_type in STEP_STARTS:
            flight.position = self._log.position
        elif event.event_type is dg.DagsterEventType.STEP_OUTPUT:
            flight.outputs += 1
            self._pass_on(event)
        elif event.event_type is dg.DagsterEventType.HANDLED_OUTPUT:
            self._pass_on(event)
        elif event.is_resource_init_failure:
            error = getattr(event.engine_event_data, "error", None)
            if error is not None:
                self._closing.close(flight, error)

    def _step(self, key: str) -> internals.ExecutionStep:
        return self._active.get_step_by_key(key)

    def _pass_on(self, event: dg.DagsterEvent) -> None:
        for each in self._stored.pass_on(event):
            self._active.handle_event(each)

    # -- steps

    def _known_state(self) -> internals.KnownExecutionState:
        return self._active.get_known_state()

    def _attempt(self, step: internals.ExecutionStep) -> int:
        return self._active.retry_state.get_attempt_count(step.key) + 1

    def _hand_out(self, flights: Sequence[InFlight]) -> None:
        if not flights:
            return
        known_state = self._known_state()
        for first in range(0, len(flights), _AT_ONCE):
            some = flights[first : first + _AT_ONCE]
            self._outages.through(lambda: self._submission.submit(some, known_state))  # noqa: B023

    def _check_records(self) -> None:
        """Look for what the bell did not say, because it was missed or the broker forgot it."""
        if time.monotonic() < self._check_at_s:
            return
        self._check_at_s = time.monotonic() + SLOW_POLL_S
        for flight in self._flights.look_at_records():
            if self._log.has_begun(flight.step.key):
                reason = "The broker forgot it, and no worker executes it."
                flight.ring = Ring(flight.task_id, State.LOST, "", {"reason": reason})
            else:
                self._hand_out([flight])

    # -- interruption

    def _interrupt(self) -> Iterator[dg.DagsterEvent]:
        """Stop every step of the run and take in how they end."""
        self._active.mark_interrupted()
        stopped = ", ".join(self._flights.steps) or "none in flight"
        self._say(f"Received a termination signal; stopping steps: {stopped}.")
        self._stop_steps()
        deadline_s = time.monotonic() + self._settings.cancel_grace_s + self._settings.renew_s
        while self._flights and time.monotonic() < deadline_s:
            self._listen(min(_PROBE_S, max(0.0, deadline_s - time.monotonic())))
            yield from self._read_log()
            self._flights.give_up_ended()

    def _stop_steps(self) -> None:
        if not self._flights.any_process:
            return
        try:
            self._broker.run(records.cancel(self._run.run_id, whole_run=False))
        except BrokerUnavailable as error:
            self._say(f"{error} Steps that run are stopped when it is back.")

    def _say_stale(self, event: dg.DagsterEvent) -> None:
        self._say(
            f"Ignoring {event.event_type_value} of step {event.step_key!r} from process "
            f"{event.pid}: that attempt was closed before."
        )

    def _say_usage(self) -> None:
        used = self._usage.read()
        if used:
            data = internals.EngineEventData(metadata=tables(used))
            dg.DagsterEvent.engine_event(self._context, in_words(used), data)

    def _say(self, sentence: str) -> None:
        dg.DagsterEvent.engine_event(self._context, sentence, internals.EngineEventData())
