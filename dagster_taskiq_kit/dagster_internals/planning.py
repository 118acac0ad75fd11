"""What a step needs of its job, made before the fork, and how Dagster is brought to use it.

Invariant: every patch here is taken back when its block ends.
"""

import contextlib
import copy
import os
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, cast

import dagster as dg

from .names import (
    ConfigMapping,
    ConfiguredDefinitionConfigSchema,
    DagsterExecutionStepNotFoundError,
    ExecutionPlan,
    KnownExecutionState,
    ReconstructableJob,
    ResolvedRunConfig,
    dagster_api,
    set_snowflake_partner_env_var,
)

#: A plan for these step keys and the resolved config it was made with; None when there is none that
#: is certain to be the one that Dagster would make.
FindPlan = Callable[
    [dg.JobDefinition, Mapping[str, object], Sequence[str], KnownExecutionState],
    tuple[ExecutionPlan, ResolvedRunConfig] | None,
]


@contextlib.contextmanager
def environment_of_steps(
    instance: dg.DagsterInstance, location: str
) -> Generator[None, None, None]:
    """Set the environment variables that Dagster sets for a step, and take them back."""
    before = dict(os.environ)
    try:
        instance.inject_env_vars(location)
        set_snowflake_partner_env_var()
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextlib.contextmanager
def noticing_config_functions() -> Generator[list[object], None, None]:
    """Yield a list of the user's functions that are called while a config is resolved.

    What they return may be another thing the next time.
    """
    called: list[object] = []
    mapping, configured = cast("Any", ConfigMapping), cast("Any", ConfiguredDefinitionConfigSchema)
    unvalidated, validated = (
        mapping.resolve_from_unvalidated_config, mapping.resolve_from_validated_config,
    )  # fmt: skip
    invoke = configured._invoke_user_config_fn

    def noticed(original: Any, function_name: str) -> Any:
        def call(self: Any, config: Any) -> Any:
            function = getattr(self, function_name)
            # What was `.configured` with values, Dagster wraps into a function of its own.
            if getattr(function, "__module__", None) != configured.__module__:
                called.append(function)
            return original(self, config)

        return call

    mapping.resolve_from_unvalidated_config = noticed(unvalidated, "config_fn")
    mapping.resolve_from_validated_config = noticed(validated, "config_fn")
    configured._invoke_user_config_fn = noticed(invoke, "_config_fn")
    try:
        yield called
    finally:
        mapping.resolve_from_unvalidated_config = unvalidated
        mapping.resolve_from_validated_config = validated
        configured._invoke_user_config_fn = invoke


class StepNotThere(BaseException):
    """The job has no such step; no Exception, which Dagster's body calls a framework error."""


@contextlib.contextmanager
def _planned_once(find_plan: FindPlan) -> Generator[None, None, None]:
    """Make Dagster's body of a step resolve its run's config once, and plan with ``find_plan``.

    It resolves the config for the plan and again for the context, and it plans the whole job to
    execute one step of it: half of what a step of a job of a hundred costs.
    """
    # The body imports the name without exporting it.
    bodies, resolved_config = cast("Any", dagster_api), cast("Any", ResolvedRunConfig)
    plan_anew, resolve_anew = bodies.create_execution_plan, resolved_config.build
    known: list[tuple[dg.JobDefinition, Any, ResolvedRunConfig]] = []

    def resolve(job_def: dg.JobDefinition, run_config: Any = None) -> ResolvedRunConfig:
        if not known:
            asked = copy.deepcopy(run_config)
            known.append((job_def, asked, resolve_anew(job_def, run_config)))
            return known[0][2]
        # Dagster asks twice, before any code of the user's; from then on its own way is taken.
        resolved_config.build = staticmethod(resolve_anew)
        job_of_plan, config_of_plan, resolved = known[0]
        same = job_of_plan is job_def and config_of_plan == run_config
        return resolved if same else resolve_anew(job_def, run_config)

    def plan(job: ReconstructableJob, **arguments: Any) -> ExecutionPlan:
        run_config = arguments["run_config"]
        if arguments["repository_load_data"] is None:
            definition = job.get_definition()
            keys, state = arguments["step_keys_to_execute"], arguments["known_state"]
            found = find_plan(definition, run_config, keys, state)
            if found is not None:
                known.append((definition, copy.deepcopy(run_config), found[1]))
                return found[0]
        return plan_anew(job, **arguments)

    def plan_of_steps_there(job: ReconstructableJob, **arguments: Any) -> ExecutionPlan:
        try:
            return plan(job, **arguments)
        except DagsterExecutionStepNotFoundError as error:
            raise StepNotThere from error

    bodies.create_execution_plan = plan_of_steps_there
    resolved_config.build = staticmethod(resolve)
    try:
        yield
    finally:
        bodies.create_execution_plan = plan_anew
        resolved_config.build = staticmethod(resolve_anew)
