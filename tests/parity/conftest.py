"""A fleet, its workers, and launches of one file of jobs."""

import contextlib
import logging
import pickle
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import dagster as dg
import yaml
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import WorkspaceFileTarget
from dagster._daemon.monitoring.run_monitoring import execute_run_monitoring_iteration

from dagster_taskiq_kit.broker import readings
from dagster_taskiq_kit.dagster_internals.workspaces import launch_job
from dagster_taskiq_kit.vocabulary.messages import run_task_id
from tests import preloaded


class Live:
    """A fleet with our launcher, and jobs."""

    def __init__(self, fleet, code: Path, process: WorkspaceProcessContext) -> None:
        self.fleet = fleet
        self.code = code
        self._process = process

    def start_worker(self, **options):
        return self.fleet.start_worker("-f", str(self.code), **options)

    def launch(self, job: str, tags: Mapping[str, str] | None = None) -> str:
        workspace = self._process.create_request_context()
        return launch_job(self.fleet.instance, workspace, job, tags)

    def launch_by_command(self, job: str, *arguments: str) -> dg.DagsterRun:
        """Launch a job by Dagster's own command line, the first of this fleet."""
        command = [sys.executable, "-m", "dagster", "job", "launch", "-f", str(self.code)]
        done = preloaded.run(
            [*command, "-j", job, *arguments], env=self.fleet.environment, within_s=90
        )
        assert done.returncode == 0, done.stderr
        (run,) = self.fleet.instance.get_runs()
        return run

    def record(self, run_id: str) -> readings.Record:
        """Return the broker's record of a run's first execution."""
        record = readings.fetch(self.fleet.broker, run_task_id(run_id, 0))
        assert record is not None
        return record

    def monitor(self) -> list:
        """Do one iteration of Dagster's own run monitoring; returns its errors."""
        errors = execute_run_monitoring_iteration(self._process, logging.getLogger("monitoring"))
        return [error for error in errors if error is not None]

    def run(self, job: str) -> tuple[dg.DagsterRun, Counter, str]:
        """Launch a job; returns the run, its events by type, and its log."""
        return self.ended(self.launch(job))

    def ended(self, run_id: str) -> tuple[dg.DagsterRun, Counter, str]:
        """Wait for the end of a run; returns the same."""
        run = self.fleet.wait_for_run(run_id, within_s=120)
        return run, self.counts(run_id), "\n".join(self.fleet.said(run_id))

    def counts(self, run_id: str) -> Counter:
        events = [e.dagster_event for e in self.fleet.instance.all_logs(run_id)]
        return Counter(e.event_type_value for e in events if e is not None and e.step_key)

    def order(self, run_id: str) -> list[str]:
        """Return the steps of a run in the order in which they started."""
        started = dg.DagsterEventType.STEP_START
        entries = self.fleet.instance.all_logs(run_id, of_type=started)
        return [e.step_key for e in sorted(entries, key=lambda entry: entry.timestamp)]

    def wait_for(self, run_id: str, event: str) -> None:
        self.fleet.wait_for(
            lambda: self.counts(run_id)[event] > 0,
            f"a {event}",
            lambda: "\n".join(self.fleet.said(run_id)),
        )

    def failure(self, run: dg.DagsterRun):
        """Return the error of the one step that failed."""
        failed = dg.DagsterEventType.STEP_FAILURE
        (entry,) = self.fleet.instance.all_logs(run.run_id, of_type=failed)
        return entry.dagster_event.step_failure_data.error

    def output(self, run: dg.DagsterRun, step: str, name: str = "result") -> object:
        return pickle.loads((self.fleet.home / "storage" / run.run_id / step / name).read_bytes())


@contextlib.contextmanager
def open_live(fleet, code: Path) -> Iterator[Live]:
    """Give a fleet the jobs of a file."""
    workspace = fleet.home / "workspace.yaml"
    target = {"relative_path": str(code), "location_name": code.name}
    workspace.write_text(yaml.safe_dump({"load_from": [{"python_file": target}]}))
    with WorkspaceProcessContext(
        fleet.instance, WorkspaceFileTarget([str(workspace)]), code_server_log_level="WARNING"
    ) as process:
        yield Live(fleet, code, process)
