"""The example that was a dagster-celery project, run by both libraries: one import line differs."""

import pickle
import shutil
import sys
import uuid
from pathlib import Path

import dagster as dg
import pytest
import yaml

from dagster_taskiq_kit.host.process_group import ProcessGroup
from tests import preloaded

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "from_celery"
BEFORE, AFTER = "from dagster_celery import", "from dagster_taskiq_kit.celery_compat import"
#: What a step says of itself; how it came to its process is the library's own affair.
OF_A_STEP = {
    "STEP_START", "STEP_INPUT", "STEP_OUTPUT", "STEP_SUCCESS", "STEP_FAILURE", "STEP_SKIPPED",
    "HANDLED_OUTPUT", "LOADED_INPUT",
}  # fmt: skip
QUEUES = ["-q", "short-queue", "-q", "long-queue"]


class Project:
    """The example with one of the libraries, a worker of it, and an instance on PostgreSQL."""

    def __init__(self, fleet, folder: Path, library: str, group: ProcessGroup) -> None:
        self.fleet = fleet
        self._code = folder / "definitions.py"
        shutil.copytree(EXAMPLE, folder)
        if library == "celery":
            text = self._code.read_text()
            assert text.count(AFTER) == 1
            self._code.write_text(text.replace(AFTER, BEFORE))
        self._folder = folder
        # Both talk to one server: Celery in a database of it, the kit in a namespace.
        database = "1" if library == "celery" else "0"
        self._environment = {
            **fleet.environment,
            "EXAMPLE_BROKER": fleet.settings.url.rpartition("/")[0] + "/" + database,
        }
        self._environment.pop("DAGSTER_TASKIQ_URL")
        _ = fleet.instance
        for number, queues in enumerate(
            # With Celery 5.7 the last -q wins: dagster-celery needs a worker for each queue.
            [QUEUES[:2], QUEUES[2:]] if library == "celery" else [QUEUES]
        ):
            self._start_worker(library, queues, group, folder / f"worker-{number}.log")

    def _start_worker(self, library, queues, group, log) -> None:
        named = [
            *queues,
            "-n",
            f"w-{uuid.uuid4().hex[:6]}",
            "-y",
            str(self._folder / "celery.yaml"),
        ]
        if library == "celery":
            program = str(Path(sys.executable).parent / "dagster-celery")
            command = [program, "worker", "start", "-A", "dagster_celery.app", *named]
            command, sign = [*command, "--", "--concurrency", "1"], " ready."
        else:
            command = [sys.executable, "-m", "dagster_taskiq_kit", "worker", "start", *named]
            command, sign = [*command, "-f", str(self._code), "--slots", "2"], " is ready"
        with log.open("wb") as output:
            group.start(command, environment=self._environment, output=output.fileno())
        self.fleet.wait_for(
            lambda: sign in log.read_text(), "the worker to be ready", log.read_text
        )

    def execute(self, job: str) -> dg.DagsterRun:
        return self._do("execute", job, "-c", str(self._folder / "run.yaml"))

    def launch(self, job: str) -> dg.DagsterRun:
        return self.fleet.wait_for_run(self._do("launch", job).run_id)

    def _do(self, verb: str, job: str, *arguments: str) -> dg.DagsterRun:
        before = {run.run_id for run in self.fleet.instance.get_runs()}
        command = [sys.executable, "-m", "dagster", "job", verb, "-f", str(self._code), "-j", job]
        done = preloaded.run([*command, *arguments], env=self._environment, within_s=150)
        runs = [run for run in self.fleet.instance.get_runs() if run.run_id not in before]
        assert len(runs) == 1, done.stdout + done.stderr
        return runs[0]

    def log_shape(self, run: dg.DagsterRun) -> dict[str, list[str]]:
        """Return what each step said of itself, in order."""
        shape: dict[str, list[str]] = {}
        for entry in self.fleet.instance.all_logs(run.run_id):
            event = entry.dagster_event
            if event is not None and event.step_key and event.event_type_value in OF_A_STEP:
                shape.setdefault(event.step_key, []).append(event.event_type_value)
        return shape

    def outputs(self, run: dg.DagsterRun) -> dict[str, object]:
        folder = self.fleet.home / "storage" / run.run_id
        return {
            path.parent.name: pickle.loads(path.read_bytes()) for path in folder.glob("*/result")
        }


@pytest.fixture
def projects(make_fleet, tmp_path):
    with (
        make_fleet("postgres", launcher=None) as old,
        make_fleet("postgres", launcher=None) as new,
        ProcessGroup() as group,
    ):
        yield (
            Project(old, tmp_path / "celery", "celery", group),
            Project(new, tmp_path / "taskiq", "taskiq", group),
        )


def test_a_project_of_dagster_celery_runs_with_its_import_line_changed_only(projects):
    celery, taskiq = projects
    before, after = (project.execute("short_job") for project in projects)
    assert before.status is after.status is dg.DagsterRunStatus.SUCCESS
    assert taskiq.log_shape(after) == celery.log_shape(before)
    expected = {"numbers": [3, 1, 2], "sorted_numbers": [1, 2, 3], "total": 6}
    assert taskiq.outputs(after) == celery.outputs(before) == expected
    said = taskiq.fleet.said(after.run_id)
    assert sum("Tags of dagster-celery are understood" in line for line in said) == 1
    assert any("Queued step \"total\" on queue 'long-queue'" in line for line in said)
    assert any("on queue 'short-queue' with priority 9" in line for line in said)

    before, after = (project.execute("failing_job") for project in projects)
    assert before.status is after.status is dg.DagsterRunStatus.FAILURE
    assert taskiq.log_shape(after) == celery.log_shape(before)


def test_its_launchers_block_needs_its_module_changed_only(make_fleet, tmp_path, monkeypatch):
    block = yaml.safe_load((EXAMPLE / "dagster.yaml").read_text())["run_launcher"]
    assert block["module"] == "dagster_taskiq_kit.celery_compat"
    with (
        make_fleet("postgres", launcher={**block, "module": "dagster_celery.launcher"}) as old,
        make_fleet("postgres", launcher=block) as new,
        ProcessGroup() as group,
    ):
        monkeypatch.setenv("EXAMPLE_BROKER", new.settings.url)
        celery = Project(old, tmp_path / "celery", "celery", group)
        taskiq = Project(new, tmp_path / "taskiq", "taskiq", group)
        before, after = (project.launch("long_job") for project in (celery, taskiq))
        assert before.status is after.status is dg.DagsterRunStatus.SUCCESS
        assert taskiq.log_shape(after) == celery.log_shape(before)
        expected = {"numbers": [3, 1, 2], "takes_long": 3}
        assert taskiq.outputs(after) == celery.outputs(before) == expected
        assert any("on queue 'long-queue'" in line for line in new.said(after.run_id))


def test_both_fleets_serve_one_instance_job_by_job_and_back(make_fleet, tmp_path):
    with make_fleet("postgres", launcher=None) as fleet, ProcessGroup() as group:
        celery = Project(fleet, tmp_path / "celery", "celery", group)
        taskiq = Project(fleet, tmp_path / "taskiq", "taskiq", group)
        runs = [project.execute("short_job") for project in (celery, taskiq, celery)]
        assert {run.status for run in runs} == {dg.DagsterRunStatus.SUCCESS}
        by_ours = [any("taskiq workers" in line for line in fleet.said(run.run_id)) for run in runs]
        assert by_ours == [False, True, False]
        shapes = [celery.log_shape(run) for run in runs]
        assert shapes[0] == shapes[1] == shapes[2]


def test_waiting_in_a_queue_is_marked_apart_from_running(projects):
    """The UI draws what lies between a marker's start and its end as waiting."""
    _, taskiq = projects
    run = taskiq.execute("short_job")
    starts, ends = {}, {}
    for entry in taskiq.fleet.instance.all_logs(run.run_id):
        data = entry.dagster_event.event_specific_data if entry.dagster_event else None
        if getattr(data, "marker_start", None) == "step_process_start":
            starts[entry.dagster_event.step_key] = entry.timestamp
        if getattr(data, "marker_end", None) == "step_process_start":
            ends[entry.dagster_event.step_key] = entry.timestamp
    assert set(starts) == set(ends) == {"numbers", "sorted_numbers", "total", "perhaps"}
    assert all(starts[step] <= ends[step] for step in starts)
