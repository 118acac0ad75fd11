"""``taskiq_executor``: executes each step of a run on a taskiq worker, in a process of its own.

Invariant: what its config does not say comes from the instance's ``TaskiqRunLauncher``, then from
the environment, then from the defaults; launcher and executor work together on one fleet.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import dagster as dg

from ..config.celery_config import Translated, translate
from ..config.dagster_config import (
    celery_fields,
    given_limits,
    given_settings,
    limit_fields,
    settings_fields,
)
from ..config.settings import FUSE_LIMIT, TaskiqSettings, laid_over
from ..dagster_internals import names as internals
from ..launching.inline_runs import all_inline
from ..launching.launcher import TaskiqRunLauncher
from .limits import Limits
from .orchestrator import Orchestrator


class TaskiqExecutor(dg.Executor):
    """Executes a plan's steps on taskiq workers.

    Args:
        settings: The deployment.
        limits: Retries, concurrency limits and step dependencies of the run.
        notes: What the run's log is told of its configuration.
    """

    def __init__(self, settings: TaskiqSettings, limits: Limits, notes: Sequence[str] = ()) -> None:
        self.settings = settings
        self._limits = limits
        self._notes = notes

    @property
    def retries(self) -> internals.RetryMode:
        """The retry mode of the run."""
        return self._limits.retries

    @property
    def step_dependency_config(self) -> internals.StepDependencyConfig:
        """When a step may begin."""
        return self._limits.step_dependency_config

    def execute(
        self,
        plan_context: internals.PlanOrchestrationContext,
        execution_plan: internals.ExecutionPlan,
    ) -> Iterator[dg.DagsterEvent]:
        """Execute a plan; yields the run's events as they come into the log."""
        chosen = (execution_plan.get_step(h) for h in execution_plan.step_handles_to_execute)
        if all_inline(step.tags for step in chosen):
            inline = internals.InProcessExecutor(retries=self.retries)
            yield from inline.execute(plan_context, execution_plan)
            return
        if not plan_context.resume_from_failure:
            for note in self._notes:
                plan_context.log.info(note)
        orchestrator = Orchestrator(
            plan_context,
            execution_plan,
            self.settings,
            self._limits,
        )
        yield from orchestrator.execute()


def executor_fields() -> dict[str, dg.Field]:
    """Return the fields of the executor's config, each optional."""
    return {**settings_fields(), **limit_fields()}


def resolve_executor_settings(
    translated: Translated, instance: dg.DagsterInstance
) -> TaskiqSettings:
    """Return the settings of a run: its executor's config over those of the instance's launcher.

    Raises:
        ConfigurationError: A value can never work.
    """
    launcher = instance.run_launcher
    ours = isinstance(launcher, TaskiqRunLauncher)
    inherited = launcher.explicit_settings if ours else {}
    fallback = launcher.fallback_settings if ours else {}
    return TaskiqSettings.resolve(
        laid_over(inherited, given_settings(translated.settings)),
        where="config of taskiq_executor",
        fallback={**fallback, **translated.fallback},
    )


def make_executor(translated: Translated, instance: dg.DagsterInstance) -> TaskiqExecutor:
    """Make the executor of a run from its config; what it does not say, the launcher's says.

    Raises:
        ConfigurationError: A value can never work.
    """
    launcher = instance.run_launcher
    inherited = launcher.explicit_limits if isinstance(launcher, TaskiqRunLauncher) else {}
    limits = {**inherited, **given_limits(translated.settings)}
    retries = internals.RetryMode.from_config(limits.get("retries") or {"enabled": {}})
    assert retries is not None  # the schema lets no empty selector through
    return TaskiqExecutor(
        resolve_executor_settings(translated, instance),
        Limits(
            retries=retries,
            max_concurrent=limits.get("max_concurrent"),
            tag_concurrency_limits=limits.get("tag_concurrency_limits") or [],
            step_dependency_config=internals.StepDependencyConfig.from_config(
                limits.get("step_dependency_config")
            ),
            worker_lost_retries=limits.get("worker_lost_retries", 0),
            fuse_limit=limits.get("fuse_limit", FUSE_LIMIT),
        ),
        translated.notes,
    )


@dg.executor(
    name="taskiq",
    config_schema={**executor_fields(), **celery_fields()},
    requirements=dg.multiple_process_executor_requirements(),
)
def taskiq_executor(context: internals.InitExecutorContext) -> TaskiqExecutor:
    """Executes each step on a taskiq worker, in a process of its own.

    Put it on your definitions::

        defs = dg.Definitions(..., executor=taskiq_executor)

    It works with ``TaskiqRunLauncher``, with any other launcher and with none
    (``dagster job execute``). Steps choose their queue and priority with the tags
    ``dagster-taskiq/queue`` and ``dagster-taskiq/priority``.
    """
    config = cast("Mapping[str, Any]", context.executor_config)
    translated = translate(config, where="config of taskiq_executor")
    return make_executor(translated, context.instance)
