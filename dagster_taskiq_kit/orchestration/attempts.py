"""An attempt of a step in flight, the limits it was submitted under, and the ways it can end.

Invariant: an attempt is in flight from its submission until its end was read from the event log.
"""

import time
from dataclasses import dataclass, field
from typing import Any

import dagster as dg

from ..broker.bells import Ring
from ..broker.readings import Record
from ..dagster_internals import log_events
from ..dagster_internals import names as internals
from ..vocabulary.states import OWNED, State

STEP_ENDS = frozenset(
    {
        dg.DagsterEventType.STEP_SUCCESS,
        dg.DagsterEventType.STEP_FAILURE,
        dg.DagsterEventType.STEP_UP_FOR_RETRY,
    }
)
ENDINGS = {
    State.SUCCEEDED: "ended without saying so in the log",
    State.FAILED: "failed without saying so in the log",
    State.CRASHED: "crashed",
    State.LOST: "was lost",
    State.REFUSED: "was refused",
    State.CANCELLED: "was cancelled",
}


@dataclass(frozen=True)
class Limits:
    """What a run's executor config says about how its steps may be executed.

    Args:
        retries: Dagster's retry mode.
        max_concurrent: Steps of the run at once, or None.
        tag_concurrency_limits: Dagster's limits by step tag.
        step_dependency_config: When a step may begin.
        worker_lost_retries: Retries of a step beyond its own policy, when its worker was lost.
    """

    retries: internals.RetryMode
    max_concurrent: int | None
    tag_concurrency_limits: list[dict[str, Any]]
    step_dependency_config: internals.StepDependencyConfig
    worker_lost_retries: int = 0

    def write_end(
        self,
        context: internals.IStepContext,
        error: internals.SerializableErrorInfo,
        known_state: internals.KnownExecutionState,
        *,
        lost: bool,
        refused: bool,
        settle_s: float,
    ) -> None:
        """Write STEP_UP_FOR_RETRY or STEP_FAILURE for an attempt that ended without either.

        Args:
            context: Dagster's context of the step.
            error: What happened.
            known_state: What Dagster knows of the run.
            lost: Whether it ended because its worker was lost.
            refused: Whether it ended because no worker would execute it: the op's retries are for
                what its body does, and another attempt would be refused as well.
            settle_s: How long the next attempt waits at least.
        """
        policy = context.op_retry_policy
        before = known_state.get_retry_state().get_attempt_count(context.step.key)
        by_policy = policy.max_retries if policy else 0
        allowed = by_policy + (self.worker_lost_retries if lost else 0)
        if self.retries.disabled or refused or before >= allowed:
            log_events.write_step_failure(context, error)
            return
        delay_s = policy.calculate_delay(before + 1) if policy and before < by_policy else 0.0
        log_events.write_step_up_for_retry(context, error, max(delay_s, settle_s))


@dataclass
class InFlight:
    """One attempt of a step that was submitted and is not closed.

    Args:
        step: Dagster's step.
        task_id: The message.
        attempt: Dagster's attempt, counting from 1.
        position: Where in the log its outputs can begin: at its start, once that was read.
        outputs: Outputs seen of it.
        ring: What the bell said of it, when it rang.
        closing: Its end was written by us and is on its way back with the log.
        announced: The run's log says where it waits.
        missing: How often in a row the broker had no record of it.
        since_s: Monotonic time of its submission.
    """

    step: internals.ExecutionStep
    task_id: str
    attempt: int
    position: int
    outputs: int = 0
    ring: Ring | None = None
    closing: bool = False
    announced: bool = False
    missing: int = 0
    since_s: float = field(default_factory=time.monotonic)

    def take(self, record: Record) -> None:
        """Take what a record says, as if the bell had said it, when the attempt is over."""
        if record.state is not State.QUEUED and record.state not in OWNED:
            self.ring = Ring(self.task_id, record.state, record.worker or "", record.detail)
