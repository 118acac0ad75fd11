"""A workspace, loaded as the UI does, and jobs of it launched."""

import contextlib
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path

import dagster as dg

from ..vocabulary.errors import ConfigurationError
from .names import WorkspaceFileTarget, WorkspaceProcessContext, WorkspaceRequestContext


@contextlib.contextmanager
def workspace_of(
    instance: dg.DagsterInstance, workspaces: Sequence[str]
) -> Generator[WorkspaceRequestContext, None, None]:
    """Load a workspace as the UI does, with a code server of its own for as long as it is used.

    Raises:
        ConfigurationError: A workspace file is not there.
    """
    for path in workspaces:
        if not Path(path).is_file():
            raise ConfigurationError(f"There is no workspace file {path!r}.", path)
    target = WorkspaceFileTarget(list(workspaces))
    with WorkspaceProcessContext(instance, target, code_server_log_level="WARNING") as process:
        yield process.create_request_context()


def launch_job(
    instance: dg.DagsterInstance,
    workspace: WorkspaceRequestContext,
    job_name: str,
    tags: Mapping[str, str] | None = None,
) -> str:
    """Launch a job of a workspace through the instance's run launcher; returns the run id.

    Args:
        instance: The Dagster instance.
        workspace: Where the job is looked for.
        job_name: The job.
        tags: Tags of the run, beside those of the job.

    Raises:
        ConfigurationError: The workspace has no such job, or its code did not load.
    """
    for location in workspace.code_locations:
        for repository in location.get_repositories().values():
            if repository.has_job(job_name):
                job = repository.get_full_job(job_name)
                plan = location.get_execution_plan(job, {}, None, None, instance=instance)
                run = instance.create_run(
                    job_name=job_name,
                    run_id=None,
                    run_config={},
                    status=dg.DagsterRunStatus.NOT_STARTED,
                    tags={**job.run_tags, **(tags or {})},
                    root_run_id=None,
                    parent_run_id=None,
                    step_keys_to_execute=None,
                    execution_plan_snapshot=plan.execution_plan_snapshot,
                    job_snapshot=job.job_snapshot,
                    parent_job_snapshot=job.parent_job_snapshot,
                    asset_selection=None,
                    asset_check_selection=None,
                    resolved_op_selection=None,
                    op_selection=None,
                    remote_job_origin=job.get_remote_origin(),
                    job_code_origin=job.get_python_origin(),
                    asset_graph=repository.asset_graph,
                )
                instance.launch_run(run.run_id, workspace)
                return run.run_id
    errors = [error.to_string() for error in workspace.code_location_errors()]
    raise ConfigurationError(
        "\n".join([f"The workspace has no job {job_name!r}.", *errors]), job_name
    )
