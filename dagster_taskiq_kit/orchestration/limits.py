"""What a run's executor config says about how its steps may be executed."""

from dataclasses import dataclass
from typing import Any

from ..config.settings import FUSE_LIMIT
from ..dagster_internals import names as internals


@dataclass(frozen=True)
class Limits:
    """Limits of one run.

    Args:
        retries: Dagster's retry mode.
        max_concurrent: Steps of the run at once, or None.
        tag_concurrency_limits: Dagster's limits by step tag.
        step_dependency_config: When a step may begin.
        worker_lost_retries: Retries of a step beyond its own policy, when its worker was lost.
        fuse_limit: Steps that one process may execute where they may share one.
    """

    retries: internals.RetryMode
    max_concurrent: int | None
    tag_concurrency_limits: list[dict[str, Any]]
    step_dependency_config: internals.StepDependencyConfig
    worker_lost_retries: int = 0
    fuse_limit: int = FUSE_LIMIT
