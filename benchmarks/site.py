"""A fleet on servers of the benchmarks, and a workspace that its runs are launched from.

Invariant: sites differ in launcher, database and namespace only.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import yaml

from dagster_taskiq_kit.dagster_internals.workspaces import launch_job, workspace_of
from dagster_taskiq_kit.testing import Fleet

from .contenders import ROOT

_Type = dg.DagsterEventType
OUR_LAUNCHER = {"module": "dagster_taskiq_kit", "class": "TaskiqRunLauncher"}

Launch = Callable[[str], str]


class Site:
    """A fleet, and a workspace to launch from.

    Args:
        fleet: The fleet.
        workspace: Its workspace file.
        launch: Launches a job by its name; returns the run id.
    """

    def __init__(self, fleet: Fleet, workspace: Path, launch: Launch) -> None:
        self.fleet = fleet
        self._workspace = workspace
        self.launch = launch

    def start_worker(self, *, slots: int, run_slots: int) -> int:
        """Start a worker that serves the workspace; returns its process id."""
        return self.fleet.start_worker(
            "-w", str(self._workspace), slots=slots, run_slots=run_slots,
            environment={"PYTHONPATH": str(ROOT)},
        ).pid  # fmt: skip

    def run(self, job: str) -> str:
        """Execute a job; returns its run id."""
        run_id = self.launch(job)
        self.fleet.wait_for_run(run_id)
        return run_id

    def begin(self, job: str) -> str:
        """Launch a job and wait until a step of it has begun; returns its run id."""
        run_id = self.launch(job)
        self.fleet.wait_for(
            lambda: bool(self.events(run_id, _Type.STEP_START)), f"a step of {job} to begin"
        )
        return run_id

    def events(self, run_id: str, kind: dg.DagsterEventType) -> Sequence[dg.EventLogEntry]:
        """Return a run's events of a type."""
        return self.fleet.instance.all_logs(run_id, of_type=kind)

    def at_s(self, run_id: str, kind: dg.DagsterEventType) -> float:
        """Return when a run's event of a type was said, seconds since 1970."""
        return self.events(run_id, kind)[0].timestamp


@contextlib.contextmanager
def open_site(
    home: Path, url: str, database: str, launcher: Mapping[str, str] | None, module: str
) -> Iterator[Site]:
    """Make a fleet and a workspace with one module of definitions; it has no worker yet.

    Args:
        home: Its ``DAGSTER_HOME``, whose name is its namespace.
        url: The broker.
        database: The PostgreSQL database.
        launcher: ``run_launcher`` of the instance; None for Dagster's own.
        module: The module.
    """
    home.mkdir()
    workspace = home / "workspace.yaml"
    target = {"python_module": {"module_name": module, "working_directory": str(ROOT)}}
    workspace.write_text(yaml.safe_dump({"load_from": [target]}))
    config: dict[str, Any] = {"storage": {"postgres": {"postgres_url": database}}}
    with (
        Fleet(home, url, home.name, launcher=launcher, config=config) as fleet,
        workspace_of(fleet.instance, [str(workspace)]) as context,
    ):
        yield Site(fleet, workspace, lambda job: launch_job(fleet.instance, context, job))
