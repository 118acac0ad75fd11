"""A site: a fleet with one launcher and one storage, and how a run is started there.

Invariant: with a launcher a run goes the way a run of the UI goes (code server, run coordinator,
launcher); without one this process is its orchestrator. The steps are the worker's in all of them.
"""

import contextlib
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import yaml
from dagster._core.definitions.reconstruct import ReconstructableRepository
from dagster._core.definitions.selector import JobSubsetSelector
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill
from dagster._core.utils import make_new_backfill_id
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import WorkspaceFileTarget
from dagster._daemon.backfill import execute_backfill_iteration
from dagster._time import get_current_timestamp

from dagster_taskiq_kit.testing import Fleet

HERE = Path(__file__).parent
FILES = [HERE / "jobs.py", HERE / "threaded_code.py"]


def execute(instance, feature, definitions, run_config, tags):
    """Execute a feature's job from this process; returns the run id."""
    code = ReconstructableRepository.for_file(str(HERE / feature.file), definitions, str(HERE))
    selection = feature.asset_selection
    return dg.execute_job(
        code.get_reconstructable_job(feature.job),
        instance=instance,
        run_config=run_config,
        tags=tags,
        op_selection=feature.op_selection,
        asset_selection=selection and [dg.AssetKey.from_user_string(key) for key in selection],
    ).run_id


def partition_tags(feature, backfill_id):
    """Return the tags of each run of a feature that is not launched as a backfill."""
    common = {"dagster/backfill": backfill_id} if feature.backfill else {}
    return [
        {**common, "dagster/partition": key} if key else common for key in feature.partition_keys
    ]


@dataclass
class Site:
    """Where runs are started.

    Args:
        fleet: The instance and its workers.
        process: A workspace of this directory with its code servers; None without a launcher.
    """

    fleet: Fleet
    process: WorkspaceProcessContext | None

    def start(self, feature):
        """Start the runs of a feature; returns their ids, in the order of its partitions."""
        instance, backfill_id = self.fleet.instance, make_new_backfill_id()
        if self.process is None:
            return [
                execute(instance, feature, "defs", feature.whole_run_config(), tags)
                for tags in partition_tags(feature, backfill_id)
            ]
        if feature.backfill:
            return self._back_fill(feature, backfill_id)
        return [self._launch(feature, tags) for tags in partition_tags(feature, backfill_id)]

    def _code(self, feature):
        workspace = self.process.create_request_context()
        location = workspace.get_code_location(feature.file)
        (repository,) = location.get_repositories().values()
        return workspace, location, repository

    def _launch(self, feature, tags):
        workspace, location, repository = self._code(feature)
        assets = feature.asset_selection and {
            dg.AssetKey.from_user_string(key) for key in feature.asset_selection
        }
        job = location.get_job(
            JobSubsetSelector(
                location.name, repository.name, feature.job, feature.op_selection, assets
            )
        )
        instance, run_config = self.fleet.instance, feature.whole_run_config()
        plan = location.get_execution_plan(job, run_config, None, None, instance=instance)
        run = instance.create_run(
            job_name=feature.job,
            run_id=None,
            run_config=run_config,
            status=None,
            tags={**job.run_tags, **tags},
            root_run_id=None,
            parent_run_id=None,
            step_keys_to_execute=plan.execution_plan_snapshot.step_keys_to_execute,
            execution_plan_snapshot=plan.execution_plan_snapshot,
            job_snapshot=job.job_snapshot,
            parent_job_snapshot=job.parent_job_snapshot,
            asset_selection=job.asset_selection,
            asset_check_selection=job.asset_check_selection,
            resolved_op_selection=job.resolved_op_selection,
            op_selection=feature.op_selection,
            remote_job_origin=job.get_remote_origin(),
            job_code_origin=job.get_python_origin(),
            asset_graph=repository.asset_graph,
        )
        return instance.submit_run(run.run_id, workspace).run_id

    def _back_fill(self, feature, backfill_id):
        """Request a backfill, and do what Dagster's daemon does until it is complete."""
        _, _, repository = self._code(feature)
        (partitions,) = [
            found for found in repository.get_partition_sets() if found.job_name == feature.job
        ]
        instance = self.fleet.instance
        instance.add_backfill(
            PartitionBackfill(
                backfill_id=backfill_id,
                partition_set_origin=partitions.get_remote_origin(),
                status=BulkActionStatus.REQUESTED,
                partition_names=list(feature.partition_keys),
                from_failure=False,
                reexecution_steps=None,
                tags={},
                backfill_timestamp=get_current_timestamp(),
            )
        )

        def complete():
            logger = logging.getLogger("backfill")
            errors = [e for e in execute_backfill_iteration(self.process, logger) if e]
            assert errors == []
            status = instance.get_backfill(backfill_id).status
            assert status in (BulkActionStatus.REQUESTED, BulkActionStatus.COMPLETED_SUCCESS)
            return status is BulkActionStatus.COMPLETED_SUCCESS

        self.fleet.wait_for(complete, f"backfill {backfill_id} to be complete")
        runs = instance.get_runs(dg.RunsFilter(tags={"dagster/backfill": backfill_id}))
        by_partition = {run.tags["dagster/partition"]: run.run_id for run in runs}
        return [by_partition[key] for key in feature.partition_keys]


@contextlib.contextmanager
def open_site(fleet: Fleet, *, workspace: bool) -> Any:
    """Start a worker on this directory's code, and its code servers if a launcher needs them."""
    with fleet, contextlib.ExitStack() as stack:
        code = [part for file in FILES for part in ("-f", str(file))]
        fleet.start_worker(*code, "--working-directory", str(HERE), slots=4, run_slots=4)
        process = None
        if workspace:
            written = fleet.home / "workspace.yaml"
            named = [{"relative_path": str(f), "working_directory": str(HERE)} for f in FILES]
            written.write_text(yaml.safe_dump({"load_from": [{"python_file": n} for n in named]}))
            process = stack.enter_context(
                WorkspaceProcessContext(
                    fleet.instance,
                    WorkspaceFileTarget([str(written)]),
                    code_server_log_level="WARNING",
                )
            )
        yield Site(fleet, process)
