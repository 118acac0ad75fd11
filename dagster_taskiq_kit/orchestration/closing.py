"""Closes attempts that have ended, or were given up, and whose end the log does not have.

Invariant: an end is written here only after the bell or the record said that the attempt has ended
or was given up, or the log that a resource of it could not be made; and only if the log has no end.
A process that was given up may still live somewhere: what it writes then is ignored. What is
written here is handled when it comes back with the log, as any other end.
"""

from collections.abc import Callable, Iterable

from ..config.settings import TaskiqSettings
from ..dagster_internals import log_events
from ..dagster_internals import names as internals
from ..vocabulary.states import State
from .flights import InFlight
from .limits import Limits
from .run_log import WORKER_LOST

#: How an attempt ended, by the last state of its record.
_ENDINGS = {
    State.SUCCEEDED: "ended without saying so in the log",
    State.FAILED: "failed without saying so in the log",
    State.CRASHED: "crashed",
    State.LOST: "was lost",
    State.REFUSED: "was refused",
    State.CANCELLED: "was cancelled",
}


class Closing:
    """Writes ends of attempts of one run.

    Args:
        context: Dagster's orchestration context of the run.
        limits: What the run's executor config says.
        settings: The deployment.
        known_state: Answers what Dagster knows of the run now.
    """

    def __init__(
        self,
        context: internals.PlanOrchestrationContext,
        limits: Limits,
        settings: TaskiqSettings,
        known_state: Callable[[], internals.KnownExecutionState],
    ) -> None:
        self._context = context
        self._limits = limits
        self._settle_s = settings.settle_s
        self._known_state = known_state

    def close_without_end(self, rung: Iterable[InFlight]) -> None:
        """Close attempts that have ended, and that have no terminal event in the log."""
        for flight in rung:
            ring = flight.ring
            if ring is None or flight.closing:
                continue
            by = f" on worker {ring.worker}" if ring.worker else ""
            reason = ring.detail.get("reason", "")
            sentence = f'Step "{flight.step.key}" {_ENDINGS[ring.state]}{by}. {reason}'.rstrip()
            kind = WORKER_LOST if ring.lost and not ring.gone else None
            error = internals.SerializableErrorInfo(sentence, stack=[], cls_name=kind)
            refused = ring.state is State.REFUSED and not ring.lost
            self.close(flight, error, lost=ring.lost, refused=refused)

    def close(
        self,
        flight: InFlight,
        error: internals.SerializableErrorInfo,
        *,
        lost: bool = False,
        refused: bool = False,
    ) -> None:
        """Write STEP_UP_FOR_RETRY or STEP_FAILURE for an attempt that ended without either.

        Args:
            flight: The attempt.
            error: What happened.
            lost: Whether it ended because its worker was lost.
            refused: Whether it ended because no worker would execute it: the op's retries are for
                what its body does, and another attempt would be refused as well.
        """
        flight.closing = True
        context = self._context.for_step(flight.step)
        policy, limits = context.op_retry_policy, self._limits
        before = self._known_state().get_retry_state().get_attempt_count(flight.step.key)
        by_policy = policy.max_retries if policy else 0
        allowed = by_policy + (limits.worker_lost_retries if lost else 0)
        if limits.retries.disabled or refused or before >= allowed:
            log_events.write_step_failure(context, error)
            return
        delay_s = policy.calculate_delay(before + 1) if policy and before < by_policy else 0.0
        settle_s = self._settle_s if error.cls_name == WORKER_LOST else 0.0
        log_events.write_step_up_for_retry(context, error, max(delay_s, settle_s))
