"""How an attempt of a step becomes a message.

Invariant: the run's log says where a step waits before its message can be taken, and a message
holds what its step must know of the run and no more, so that it does not grow with the job.
"""

from collections.abc import Mapping, Sequence

import dagster as dg

from ..broker import records
from ..broker.connection import SyncConnection
from ..broker.records import Submitted
from ..broker.scripts import Call
from ..config.routing import Route, StepRoutes, old_tags_note
from ..config.settings import TaskiqSettings
from ..dagster_internals import code_locations
from ..dagster_internals import names as internals
from ..vocabulary import messages
from ..vocabulary.messages import StepMessage
from ..vocabulary.states import Kind
from .flights import InFlight
from .limits import Limits

#: Mapping keys by step and dynamic output, as Dagster has them.
Mappings = Mapping[str, Mapping[str, Sequence[str] | None]]


class StepSubmission:
    """Submits the steps of one run.

    Args:
        context: Dagster's orchestration context of the run.
        settings: The deployment.
        broker: The broker.
        limits: What the run's executor config says.
        tell_outputs: Whether the bell is to ring at each output, not only at the end of a step.

    Raises:
        ConfigurationError: A tag of the run can never work, or no other process can find its job.
    """

    def __init__(
        self,
        context: internals.PlanOrchestrationContext,
        settings: TaskiqSettings,
        broker: SyncConnection,
        limits: Limits,
        *,
        tell_outputs: bool,
    ) -> None:
        self._context = context
        self._settings = settings
        self._broker = broker
        self._tell_outputs = tell_outputs
        self._fuse_limit = limits.fuse_limit
        self._retry_mode = limits.retries.for_inner_plan().value
        self._run_id = context.dagster_run.run_id
        self._code = code_locations.code_name(context.dagster_run, context.reconstructable_job)
        self._routes = StepRoutes(settings, context.dagster_run.tags, self._code.location)

    def check_tags(self, plan: internals.ExecutionPlan, *, say: bool) -> None:
        """Look at the tags of all steps before the first is submitted.

        Args:
            plan: What is to be executed.
            say: Whether to warn in the run's log of tags of dagster-celery.

        Raises:
            ConfigurationError: A tag of a step can never work.
        """
        steps = [plan.get_step(handle) for handle in plan.step_handles_to_execute]
        for step in steps:
            self._routes.of(step)
        note = old_tags_note(self._context.dagster_run.tags, steps)
        if note and say:
            self._context.log.warning(note)

    def urgency(self, step: internals.ExecutionStep) -> float:
        """Return what steps are sorted by when not all of them may begin: the lowest first."""
        return -self._routes.of(step).priority

    def submit(
        self, flights: Sequence[InFlight], known_state: internals.KnownExecutionState
    ) -> None:
        """Announce and submit attempts; repeating it is the same submit.

        Args:
            flights: The attempts.
            known_state: What Dagster knows of the run.

        Raises:
            ConfigurationError: A tag of the step can never work.
            BrokerUnavailable: The broker is away.
        """
        calls: list[Call[Submitted]] = []
        for flight in flights:
            route = self._routes.of(flight.step)
            if not flight.announced:
                self._announce(flight, route)
                flight.announced = True
            calls.append(self._call(flight, route, known_state))
        self._broker.run_all(calls)

    def _call(
        self, flight: InFlight, route: Route, known_state: internals.KnownExecutionState
    ) -> Call[Submitted]:
        message = StepMessage(
            run_id=self._run_id,
            step_key=flight.step.key,
            attempt=flight.attempt,
            code=self._code,
            retry_mode=self._retry_mode,
            known_state=internals.serialize_value(self._needed_of(flight.step, known_state)),
            timeout_s=route.timeout_s,
            tell_outputs=self._tell_outputs,
            fuse_limit=self._fuse_limit if route.shares_process else 0,
        )
        return records.submit(
            task_id=message.task_id,
            kind=Kind.STEP,
            queue=route.queue,
            priority=route.priority,
            run_id=self._run_id,
            payload=messages.encode(message),
        )

    def _announce(self, flight: InFlight, route: Route) -> None:
        dg.DagsterEvent.step_worker_starting(
            self._context.for_step(flight.step),
            message=f'Queued step "{flight.step.key}" on {route}.',
            metadata={
                "queue": dg.MetadataValue.text(route.queue),
                "priority": dg.MetadataValue.int(route.priority),
                "task_id": dg.MetadataValue.text(flight.task_id),
            },
        )

    def _needed_of(
        self, step: internals.ExecutionStep, state: internals.KnownExecutionState
    ) -> internals.KnownExecutionState:
        """Return what a step must know of the run; Dagster's own state holds every output of it."""
        needed = {
            handle
            for step_input in step.step_inputs
            for handle in step_input.get_step_output_handle_dependencies()
        }
        attempts = state.previous_retry_attempts
        return internals.KnownExecutionState(
            previous_retry_attempts={step.key: attempts[step.key]} if step.key in attempts else {},
            dynamic_mappings=self._mappings_of(step, needed, state.dynamic_mappings),
            ready_outputs=needed & set(state.ready_outputs),
            step_output_versions=state.step_output_versions,
            parent_state=state.parent_state,
        )

    def _mappings_of(
        self,
        step: internals.ExecutionStep,
        needed: set[internals.StepOutputHandle],
        mappings: Mappings,
    ) -> Mappings:
        """Return the dynamic outputs a step must know; of its own fan, its mapping key alone."""
        handle = step.handle
        if not isinstance(handle, internals.ResolvedFromDynamicStepHandle):
            return mappings
        own = handle.mapping_key
        if not all(_is_of(each, own) for each in needed):
            return mappings  # it collects a fan, too
        mapped = self._context.execution_plan.get_step(handle.unresolved_form)
        assert isinstance(mapped, internals.UnresolvedMappedExecutionStep)
        source, output = mapped.resolved_by_step_key, mapped.resolved_by_output_name
        return {**mappings, source: {**mappings[source], output: [own]}}


def _is_of(handle: internals.StepOutputHandle, mapping_key: str) -> bool:
    """Return whether an output is one, or has nothing to do with other branches of a fan."""
    mapped_to = handle.step_key.endswith("]") and not handle.step_key.endswith(f"[{mapping_key}]")
    return handle.mapping_key in (None, mapping_key) and not mapped_to
