"""Plans of whole jobs, made once before the fork and inherited by every step child.

Invariant: a plan is handed out only where Dagster would make the same one. It was made for an empty
run config, from the very definition that the step runs on, in the environment that the step has,
and no function of the user's had a say in its config. Whatever else a step asks for (a run config,
a selection, resolved dynamic outputs) gets None and goes Dagster's own way.

Planning is O(job) where executing a step is not: half of a step's CPU in a job of a hundred.
"""

import logging
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import dagster as dg

from . import dagster_seam as seam

logger = logging.getLogger(__name__)

#: Jobs that are not prepared by then are planned in their children.
_PREPARE_WITHIN_S = 5.0


@dataclass(frozen=True)
class _Prepared:
    """A job's plan for an empty run config.

    Args:
        definition: The job; kept, so that its identity stays its own.
        config: Its resolved config.
        plan: The plan of all its steps, with nothing known of any.
    """

    definition: dg.JobDefinition
    config: seam.ResolvedRunConfig
    plan: seam.ExecutionPlan


class PreparedJobs:
    """The plans of a code location's jobs."""

    def __init__(self) -> None:
        self._prepared: dict[int, _Prepared] = {}
        self._environment: Mapping[str, str] = {}

    def __len__(self) -> int:
        return len(self._prepared)

    def prepare(self, code: seam.LoadedCode, instance: dg.DagsterInstance) -> None:
        """Plan the jobs of a code location, as many as can be had in a few seconds."""
        deadline_s = time.monotonic() + _PREPARE_WITHIN_S
        with seam.environment_of_steps(instance, code.location):
            self._environment = dict(os.environ)
            for (_, name), job in code.jobs.items():
                if time.monotonic() > deadline_s:
                    logger.info("Some jobs are planned in their steps: there are many.")
                    return
                # A run of assets has a selection, so it has a definition of its own.
                if not seam.is_reserved_asset_job_name(name):
                    self._prepare(job.get_definition())

    def _prepare(self, definition: dg.JobDefinition) -> None:
        try:
            with seam.noticing_config_functions() as called:
                config = seam.ResolvedRunConfig.build(definition, {})
        except dg.DagsterError:
            return  # it needs a config
        if not called:
            plan = seam.ExecutionPlan.build(definition, config)
            self._prepared[id(definition)] = _Prepared(definition, config, plan)

    def find(
        self,
        definition: dg.JobDefinition,
        run_config: Mapping[str, object],
        step_keys: Sequence[str],
        known_state: seam.KnownExecutionState,
    ) -> tuple[seam.ExecutionPlan, seam.ResolvedRunConfig] | None:
        """Return the plan for some steps of a job and the config it was made with, or None."""
        prepared = self._prepared.get(id(definition))
        if (
            prepared is None
            or run_config
            or known_state.dynamic_mappings
            or dict(os.environ) != self._environment
        ):
            return None
        plan = prepared.plan._replace(known_state=known_state)
        if step_keys != plan.step_keys_to_execute:
            plan = plan.build_subset_plan(step_keys, definition, prepared.config)
        return plan, prepared.config
