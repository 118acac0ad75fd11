"""Code that was changed is executed as it is now, without a gap, and what cannot be is said."""

import os
import signal
import subprocess
import sys

import dagster as dg
import pytest
import yaml

from dagster_taskiq_kit.dagster_internals.workspaces import launch_job, workspace_of
from dagster_taskiq_kit.health.findings import Severity
from dagster_taskiq_kit.health.rules import judge
from dagster_taskiq_kit.vocabulary.tags import CODE_TAG

SUCCESS = dg.DagsterRunStatus.SUCCESS

#: Its second step waits while there is a file ``closed`` beside the package.
CODE = """
import time
from pathlib import Path
import dagster as dg
from dagster_taskiq_kit import taskiq_executor
from etl.answers import ANSWER
{more}

@dg.op
def says(context) -> None:
    context.log.info(f"I say {{ANSWER}}")
    while Path(__file__).parents[1].joinpath("closed").exists():
        time.sleep(0.05)
    context.log.info(f"I said {{ANSWER}}")

@dg.op(ins={{"after": dg.In(dg.Nothing)}})
def repeats(context) -> None:
    context.log.info(f"Then I say {{ANSWER}}")

@dg.job(executor_def=taskiq_executor)
def speaks():
    repeats(says())

defs = dg.Definitions(jobs=[speaks])
"""

LAYERED = "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()"
BROKEN = "ANSWER = 'unfinished\n"


class Project:
    """A package of code that a fleet's worker and a workspace serve."""

    def __init__(self, fleet, folder):
        self.fleet = fleet
        self.folder = folder
        self.file = folder / "workspace.yaml"
        target = {"module_name": "etl.jobs", "working_directory": str(folder)}
        (folder / "etl").mkdir(parents=True)
        self.write("__init__.py", "")
        self.answer("one")
        self.write("jobs.py", CODE.format(more=""))
        self.file.write_text(yaml.safe_dump({"load_from": [{"python_module": target}]}))

    def write(self, name, content):
        """Write a file of the package, as an editor does: in one step."""
        written = self.folder / f".{name}.tmp"
        written.write_text(content)
        written.replace(self.folder / "etl" / name)

    def answer(self, answer):
        self.write("answers.py", f"ANSWER = {answer!r}\n")

    def start_worker(self, *arguments, **options):
        return self.fleet.start_worker("-w", str(self.file), *arguments, **options)

    def launch(self, *before):
        """Launch the job; what is said is called between the load of the workspace and that."""
        with workspace_of(self.fleet.instance, [str(self.file)]) as context:
            for each in before:
                each()
            return launch_job(self.fleet.instance, context, "speaks")

    def said(self, run_id, *words):
        """Return the answers in those lines of a run's log that have these words."""
        lines = self.fleet.said(run_id)
        return [line.split()[-1] for line in lines if any(word in line for word in words)]

    def says(self, run_id):
        """Return what the steps of a run that ended well said."""
        assert self.fleet.wait_for_run(run_id).status is SUCCESS, self.fleet.said(run_id)
        return self.said(run_id, "I say", "I said")

    def log(self):
        return self.fleet.worker_log(1).read_text()

    def wait_for_log(self, text, times=1):
        self.fleet.wait_for(lambda: self.log().count(text) >= times, text, self.log)

    def freshness(self):
        """Return how the check of fresh code is judged."""
        findings = judge(self.fleet.snapshot(), self.fleet.settings)
        (found,) = [each for each in findings if each.check == "code_fresh"]
        return found


@pytest.fixture
def project(fleet, tmp_path):
    return Project(fleet, tmp_path / "project")


RELOADED = "was loaded again"


@pytest.mark.parametrize("more", ["", LAYERED], ids=["warm", "layered"])
def test_a_body_that_was_changed_is_executed_as_it_is_now(project, more):
    project.write("jobs.py", CODE.format(more=more))
    project.start_worker()
    assert project.says(project.launch()) == ["one"] * 3
    project.answer("two")
    assert project.says(project.launch()) == ["two"] * 3
    assert "1 file changed" in project.log()
    # A file that comes is seen as well; one that was only touched is nothing new.
    os.utime(project.folder / "etl" / "answers.py")
    project.write("more.py", "")
    project.wait_for_log("more.py")
    project.wait_for_log(RELOADED, times=2)
    project.answer("three")
    assert project.says(project.launch()) == ["three"] * 3
    assert project.log().count(RELOADED) == 3


def test_what_executes_goes_on_with_its_code_and_what_begins_then_has_the_new(project):
    closed = project.folder / "closed"
    closed.touch()
    project.start_worker()
    run_id = project.launch()
    project.fleet.wait_for(lambda: project.said(run_id, "I say"), "the first step to begin")
    project.answer("two")
    project.wait_for_log(RELOADED)
    closed.unlink()
    assert project.says(run_id) == ["one", "one", "two"]


def test_code_that_does_not_import_leaves_the_old_one_serving_and_is_told_everywhere(project):
    project.start_worker()
    run_id = project.launch(
        lambda: project.write("answers.py", BROKEN), lambda: project.wait_for_log("does not import")
    )
    assert project.says(run_id) == ["one"] * 3
    assert any("older than its files" in line for line in project.fleet.said(run_id))
    assert "SyntaxError" in project.log()
    project.fleet.wait_for(lambda: not project.freshness().ok, "the check to tell it")
    found = project.freshness()
    assert found.severity is Severity.WARN
    assert "SyntaxError" in found.sentence
    assert project.fleet.snapshot().live_workers[0].state == "alive"
    project.answer("mended")
    project.wait_for_log(RELOADED)
    assert project.says(project.launch()) == ["mended"] * 3
    project.fleet.wait_for(lambda: project.freshness().ok, "the check to be fine again")


def told_by_command(project, worker):
    command = [sys.executable, "-m", "dagster_taskiq_kit", "worker", "reload", "worker-1"]
    subprocess.run(command, check=True, env={**os.environ, **project.fleet.environment})


def told_by_signal(project, worker):
    worker.send_signal(signal.SIGHUP)


@pytest.mark.parametrize("tell", [told_by_command, told_by_signal])
def test_a_worker_that_reloads_when_told_says_that_it_has_older_code(project, tell):
    worker = project.start_worker("--reload", "told")
    project.answer("two")
    project.fleet.wait_for(lambda: not project.freshness().ok, "it to be told")
    assert "answers.py" in project.freshness().sentence
    assert project.says(project.launch()) == ["one"] * 3
    tell(project, worker)
    project.wait_for_log(f"{RELOADED}: it was told to")
    assert project.says(project.launch()) == ["two"] * 3


def test_code_is_loaded_again_at_its_age_without_a_gap(project):
    project.write("answers.py", "import time\nANSWER = time.time()\n")
    project.start_worker("--reload", "never", "--max-code-age", "etl.jobs=3")
    first = float(project.says(project.launch())[0])
    while f"{RELOADED}: it is older than 3 s" not in project.log():
        assert len(project.says(project.launch())) == 3
        assert project.fleet.snapshot().live_workers[0].state == "alive"
    later = float(project.says(project.launch())[0])
    assert later > first


def test_a_run_says_with_which_code_it_was_launched_and_which_executed_it(project):
    project.start_worker("--reload", "never")
    run_id = project.launch()
    assert project.says(run_id) == ["one"] * 3
    run = project.fleet.instance.get_run_by_id(run_id)
    launched = run.tags[CODE_TAG]
    executed = {
        value.text
        for record in project.fleet.instance.all_logs(run_id)
        if record.dagster_event
        for name, value in getattr(record.dagster_event.event_specific_data, "metadata", {}).items()
        if name == "code"
    }
    assert executed == {launched}
    assert not [line for line in project.fleet.said(run_id) if "other code" in line]
    project.answer("two")
    run_id = project.launch()
    assert project.says(run_id) == ["one"] * 3
    (told,) = {line for line in project.fleet.said(run_id) if line.startswith("- -")}
    assert f"({launched}, loaded at" in told
    assert "dagster-taskiq worker reload" in told


def test_a_run_of_code_that_the_code_server_has_not_loaded_yet_says_nothing_of_it(project):
    project.start_worker()
    run_id = project.launch(lambda: project.answer("two"))
    assert project.says(run_id) == ["two"] * 3
    assert CODE_TAG not in project.fleet.instance.get_run_by_id(run_id).tags
