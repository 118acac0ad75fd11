"""An attempt of a step in flight, the limits it was submitted under, and the ways it can end.

Invariant: an attempt is in flight from its submission until its end was read from the event log.
"""

from dataclasses import dataclass
from typing import Any

import dagster as dg

from . import dagster_seam as seam
from .broker.bells import Ring
from .states import State

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
    """

    retries: seam.RetryMode
    max_concurrent: int | None
    tag_concurrency_limits: list[dict[str, Any]]
    step_dependency_config: seam.StepDependencyConfig


@dataclass
class InFlight:
    """One attempt of a step that was submitted and is not closed.

    Args:
        step: Dagster's step.
        task_id: The message.
        attempt: Dagster's attempt, counting from 1.
        cursor: Where in the log its events can begin.
        outputs: Outputs seen of it.
        ring: What the bell said of it, when it rang.
        closing: Its end was written by us and is on its way back with the log.
    """

    step: seam.ExecutionStep
    task_id: str
    attempt: int
    cursor: str | None
    outputs: int = 0
    ring: Ring | None = None
    closing: bool = False
