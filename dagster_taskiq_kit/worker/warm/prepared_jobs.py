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

from ...dagster_internals import names as internals
from ...dagster_internals import planning
from ...dagster_internals.code_locations import LoadedCode
from ...vocabulary.log_actions import Action, about

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
    config: internals.ResolvedRunConfig
    plan: internals.ExecutionPlan


class PreparedJobs:
    """The plans of a code location's jobs."""

    def __init__(self) -> None:
        self._prepared: dict[int, _Prepared] = {}
        self._environment: Mapping[str, str] = {}

    def __len__(self) -> int:
        return len(self._prepared)

    def prepare(self, code: LoadedCode, instance: dg.DagsterInstance) -> None:
        """Plan the jobs of a code location, as many as can be had in a few seconds."""
        try:
            with planning.environment_of_steps(instance, code.location):
                self._environment = dict(os.environ)
                self._prepare_all(code)
        except Exception as error:  # noqa: BLE001  (a step says it: its environment cannot be had)
            logger.warning(
                "Jobs are planned in their steps: %s", error, extra=about(Action.NOT_PREPARED)
            )

    def _prepare_all(self, code: LoadedCode) -> None:
        deadline_s = time.monotonic() + _PREPARE_WITHIN_S
        for (_, name), job in code.jobs.items():
            if time.monotonic() > deadline_s:
                logger.info(
                    "Some jobs are planned in their steps: there are many.",
                    extra=about(Action.NOT_PREPARED),
                )
                return
            self._prepare(name, job)

    def _prepare(self, name: str, job: internals.ReconstructableJob) -> None:
        try:
            definition = job.get_definition()
            if internals.is_reserved_asset_job_name(name):
                return  # its runs have a selection, so each has a definition of its own
            with planning.noticing_config_functions() as called:
                config = internals.ResolvedRunConfig.build(definition, {})
            if not called:
                plan = internals.ExecutionPlan.build(definition, config)
                self._prepared[id(definition)] = _Prepared(definition, config, plan)
        except Exception as error:  # noqa: BLE001  (a step says it, should there ever be one)
            # Most often it needs a config.
            logger.debug(
                "Job %r is planned in its steps: %s", name, error,
                extra=about(Action.NOT_PREPARED, job=name),
            )  # fmt: skip

    def find(
        self,
        definition: dg.JobDefinition,
        run_config: Mapping[str, object],
        step_keys: Sequence[str],
        known_state: internals.KnownExecutionState,
    ) -> tuple[internals.ExecutionPlan, internals.ResolvedRunConfig] | None:
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
