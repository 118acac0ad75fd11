"""Runs that pass by the queue: health checks, which would else wait for what they judge.

Invariant: a run is inline when it selects asset checks and every step of its plan carries the tag
``dagster-taskiq/inline``. It needs neither the broker nor a worker: the code server executes it, in
one process.
"""

import contextlib
from collections.abc import Iterable, Mapping

import dagster as dg

from ..dagster_internals import names as internals
from ..vocabulary.tags import INLINE_TAG

#: A run whose code server died has nobody who could end it; run monitoring does after this.
_MOST_S = 300


def all_inline(step_tags: Iterable[Mapping[str, str] | None]) -> bool:
    """Return whether there are steps and all of them are inline."""
    some = False
    for tags in step_tags:
        if (tags or {}).get(INLINE_TAG) != "true":
            return False
        some = True
    return some


class InlineRuns:
    """The launcher of inline runs: Dagster's own, held by ours.

    Args:
        instance: The Dagster instance.
    """

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self._instance = instance
        self._launcher = internals.DefaultRunLauncher()
        self._launcher.register_instance(instance)

    def takes(self, run: internals.DagsterRun) -> bool:
        """Return whether a run that is to be launched is inline."""
        if not run.asset_check_selection or run.execution_plan_snapshot_id is None:
            return False
        plan = self._instance.get_execution_plan_snapshot(run.execution_plan_snapshot_id)
        chosen = set(plan.step_keys_to_execute)
        return all_inline(step.tags for step in plan.steps if step.key in chosen)

    def launch(self, context: internals.LaunchRunContext) -> None:
        """Have the run's code server execute it."""
        run = context.dagster_run
        self._instance.add_run_tags(run.run_id, {internals.MAX_RUNTIME_SECONDS_TAG: str(_MOST_S)})
        self._instance.report_engine_event(
            "Every step of this run is inline: its code server executes it, without the queue.",
            run,
            cls=type(self),
        )
        self._launcher.launch_run(context)

    def terminate(self, run: internals.DagsterRun) -> bool:
        """Have the code server end a run; returns whether it heard that."""
        return bool(self._launcher.terminate(run.run_id))

    def dispose(self) -> None:
        """Let go of what the launcher holds."""
        with contextlib.suppress(OSError):
            self._launcher.dispose()


def launched_inline(run: internals.DagsterRun) -> bool:
    """Return whether a run was given to its code server."""
    return internals.GRPC_INFO_TAG in run.tags
