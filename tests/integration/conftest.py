"""A fleet that works on one code file: its workers, its launches, and what its op bodies did."""

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

import pytest
import yaml

from dagster_taskiq_kit.dagster_internals.workspaces import launch_job, workspace_of


class Entry(NamedTuple):
    """One time that an op body ran."""

    run_id: str
    step_key: str
    retry_number: int
    pid: int


class Site:
    """A fleet and one code file.

    Args:
        fleet: The fleet.
        file: The code file; ``ledger.py`` stands beside it.
        workspace: Dagster's view of the file.
    """

    def __init__(self, fleet, file, workspace):
        self.fleet = fleet
        self.instance = fleet.instance
        self.file = file
        self._workspace = workspace

    def start_worker(self, *arguments, **options):
        """Start a worker that serves the file."""
        code = ["-f", str(self.file), "--working-directory", str(self.file.parent)]
        return self.fleet.start_worker(*code, *arguments, **options)

    def launch(self, job, tags=None):
        """Launch a job through the fleet's launcher; returns the run id."""
        return launch_job(self.instance, self._workspace, job, tags)

    def ledger(self, run_id) -> list[Entry]:
        """Return each time that a body of this run ran, in that order."""
        ledger = self.fleet.home / "ledger"
        lines = ledger.read_text().splitlines() if ledger.exists() else []
        entries = [
            Entry(run, key, int(retry), int(pid))
            for run, key, retry, pid in (line.split(" ") for line in lines)
        ]
        return [entry for entry in entries if entry.run_id == run_id]

    def bodies(self, run_id) -> list[str]:
        """Return the step key for each time that a body of this run ran, in that order."""
        return [entry.step_key for entry in self.ledger(run_id)]

    def open_gate(self, name):
        """Let the steps go on that wait at this gate."""
        (self.fleet.home / name).touch()

    def wait_for(self, true, what, run_id=None):
        """Wait until ``true()``; what the run said explains why it did not come about."""
        explain = (lambda: "\n".join(self.fleet.said(run_id))) if run_id else (lambda: "")
        self.fleet.wait_for(true, what, explain)


@contextlib.contextmanager
def open_site(fleet, file) -> Iterator[Site]:
    """Load a code file as the UI does, for launches through a fleet's launcher."""
    written = fleet.home / "workspace.yaml"
    target = {"relative_path": str(file), "working_directory": str(file.parent)}
    written.write_text(yaml.safe_dump({"load_from": [{"python_file": target}]}))
    with workspace_of(fleet.instance, [str(written)]) as workspace:
        yield Site(fleet, file, workspace)


@pytest.fixture
def site(fleet, request) -> Iterator[Site]:
    """A fleet, without a worker yet, for the file that the test module names as ``CODE``."""
    with open_site(fleet, request.module.CODE) as made:
        yield made


@pytest.fixture(name="open_site", scope="session")
def open_site_fixture():
    """Opens a site on any fleet and any code file; a context manager."""
    return open_site
