"""A run executes the code of its own location, and a worker loads what Dagster's tools load."""

import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest
import yaml
from dagster._core.execution.api import execute_run_iterator

from dagster_taskiq_kit.dagster_internals import names as internals
from dagster_taskiq_kit.dagster_internals.workspaces import launch_job, workspace_of
from tests import preloaded

SUCCESS, FAILURE = dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE
BIN = Path(sys.executable).parent

CODE = """
import dagster as dg
from dagster_taskiq_kit import taskiq_executor

@dg.op
def says() -> str:
    return {answer!r}

@dg.job(executor_def=taskiq_executor)
def etl():
    says()

defs = dg.Definitions(jobs=[etl])
"""

#: Its op imports what stands beside the code when it runs, not before.
FIND = """
import dagster as dg
import beside_it
from dagster_taskiq_kit import taskiq_executor

@dg.op
def finds() -> int:
    import beside_it_too
    return beside_it_too.ANSWER

@dg.job(name={job!r}, executor_def=taskiq_executor)
def a_job():
    finds()

{name} = dg.Definitions(jobs=[a_job])
{rest}
"""


def write(file, content):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content)
    return file


def workspace(file, *targets):
    return str(write(file, yaml.safe_dump({"load_from": list(targets)})))


def answer(fleet, run_id):
    (file,) = Path(fleet.instance.storage_directory()).glob(f"{run_id}/says/result")
    return file.read_bytes()


def launch_in(fleet, file, job="etl"):
    with workspace_of(fleet.instance, [file]) as context:
        return launch_job(fleet.instance, context, job)


def module_in(folder, name):
    said = {"module_name": "definitions", "working_directory": str(folder), "location_name": name}
    return {"python_module": said}


def test_locations_that_share_every_name_execute_their_own_code_or_none(fleet, tmp_path):
    one = {}
    for team in ("north", "south", "east"):
        write(tmp_path / team / "definitions.py", CODE.format(answer=f"code of {team}"))
        one[team] = workspace(tmp_path / f"{team}.yaml", module_in(tmp_path / team, team))
    both = [module_in(tmp_path / team, team) for team in ("north", "south")]
    fleet.start_worker("-w", workspace(tmp_path / "both.yaml", *both))
    for team in ("north", "south"):
        run_id = launch_in(fleet, one[team])
        assert fleet.wait_for_run(run_id).status is SUCCESS
        assert f"code of {team}".encode() in answer(fleet, run_id)
    # Nobody serves this one, though a module of its name is there twice.
    run_id = launch_in(fleet, one["east"])
    dead = fleet.broker.keys.name("dead")
    fleet.wait_for(lambda: fleet.broker.client.xlen(dead) == 1, "the run to be refused")
    ((_, letter),) = fleet.broker.client.xrange(dead)
    assert b"does not serve job 'etl' of code location 'east'" in letter[b"reason"]
    assert b"loaded as north, south" in letter[b"reason"]
    assert not list(Path(fleet.instance.storage_directory()).glob(f"{run_id}/*"))


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder of code that is installed nowhere, as the current one."""
    folder = tmp_path / "project"
    write(folder / "beside_it.py", "")
    write(folder / "beside_it_too.py", "ANSWER = 42")
    write(folder / ".env", "SAID_IN_ENV=yes")
    (folder / "inner").mkdir()
    write(folder / "inner" / "beside_it.py", "")

    def find(file, job, name="defs", rest=""):
        write(folder / file, FIND.format(job=job, name=name, rest=rest))

    find("as_module/definitions.py", "a_module")
    find("as_package/__init__.py", "a_package")
    find("as_file.py", "a_file")
    find("as_file_with_more.py", "a_file_with_more")
    find("inner/in_a_folder.py", "a_module_in_a_folder")
    find("chosen.py", "chosen", "the_one", "def other():\n    raise RuntimeError('not asked for')")
    find("reads_env.py", "reads_env", rest="import os\nos.environ['SAID_IN_ENV']")
    find("autoloaded/defs/some.py", "autoloaded")
    write(folder / "autoloaded" / "__init__.py", "")
    write(folder / "autoloaded" / "defs" / "__init__.py", "")
    write(folder / "setup.py", "")  # by which Dagster knows the root of a project
    monkeypatch.chdir(folder)
    return folder


WORKSPACE = {
    "a_module": {"python_module": "as_module.definitions"},
    "a_package": {"python_package": "as_package"},
    "a_file": {"python_file": "as_file.py"},
    "a_file_with_more": {
        "python_file": {"relative_path": "as_file_with_more.py", "location_name": "more"}
    },
    "a_module_in_a_folder": {
        "python_module": {"module_name": "in_a_folder", "working_directory": "inner"}
    },
    "chosen": {"python_module": {"module_name": "chosen", "attribute": "the_one"}},
    "reads_env": {
        "python_file": {"relative_path": "reads_env.py", "executable_path": sys.executable}
    },
    "autoloaded": {"autoload_defs_module": "autoloaded.defs"},
}


def test_whatever_dagsters_tools_load_from_a_workspace_a_worker_loads_and_executes(fleet, project):
    file = workspace(project / "workspace.yaml", *WORKSPACE.values())
    with workspace_of(fleet.instance, [file]) as context:
        assert not [error.to_string() for error in context.code_location_errors()]
        names = sorted(location.name for location in context.code_locations)
        # By the console script: its own folder is first on its path, not the current one.
        fleet.start_worker("-w", file, program=[str(BIN / "dagster-taskiq")], slots=4, run_slots=4)
        (worker,) = fleet.snapshot().live_workers
        assert sorted(worker.card.locations) == names
        runs = {job: launch_job(fleet.instance, context, job) for job in WORKSPACE}
    for job, run_id in runs.items():
        ended = fleet.wait_for_run(run_id)
        assert ended.status is SUCCESS, (job, fleet.said(run_id))


def test_a_location_of_another_environment_is_served_warm_by_that_environment(fleet, project):
    """A virtual environment of the same binary and packages: what makes it another is its folder."""
    own = Path(sys.prefix)
    other = project / "other_environment"
    (other / "bin").mkdir(parents=True)
    (other / "bin" / "python").symlink_to(Path(sys.executable).resolve())
    (other / "lib").symlink_to(own / "lib")
    (other / "pyvenv.cfg").write_text((own / "pyvenv.cfg").read_text())
    executable = str(other / "bin" / "python")
    write(
        project / "elsewhere.py",
        "import sys\nimport dagster as dg\nfrom dagster_taskiq_kit import taskiq_executor\n"
        "@dg.op\ndef where(): assert sys.executable == " + repr(executable) + "\n"
        "@dg.job\ndef elsewhere(): where()\n"
        "defs = dg.Definitions(jobs=[elsewhere], executor=taskiq_executor)\n",
    )
    target = {"relative_path": "elsewhere.py", "executable_path": executable}
    file = workspace(project / "workspace.yaml", {"python_file": target})
    with workspace_of(fleet.instance, [file]) as context:
        assert not [error.to_string() for error in context.code_location_errors()]
        fleet.start_worker("-w", file)
        (worker,) = fleet.snapshot().live_workers
        assert worker.card.modes == {"elsewhere.py": "warm"}
        run_id = launch_job(fleet.instance, context, "elsewhere")
    assert fleet.wait_for_run(run_id).status is SUCCESS, fleet.said(run_id)


@pytest.mark.parametrize("there", [False, True])
def test_an_interpreter_that_cannot_serve_is_named_with_what_to_do(fleet, project, there):
    executable = project / "bare" / "bin" / "python"
    if there:
        subprocess.run(
            [sys.executable, "-m", "venv", "--without-pip", project / "bare"], check=True
        )
    target = {"relative_path": "jobs.py", "executable_path": str(executable)}
    write(project / "jobs.py", "import dagster as dg\ndefs = dg.Definitions()\n")
    file = workspace(project / "workspace.yaml", {"python_file": target})
    worker = fleet.start_worker("-w", file, wait=False)
    assert worker.wait(60) == 1
    said = fleet.worker_log(1).read_text()
    assert f"The interpreter '{executable}' (executable_path of the workspace)" in said
    assert ("No module named" if there else "there is no such program") in said
    assert "Install dagster-taskiq-kit" in said


@pytest.mark.parametrize(
    ("options", "name"),
    [
        (["-m", "as_module.definitions"], "as_module.definitions"),
        (["-m", "as_module.definitions", "--working-directory", "."], "as_module.definitions"),
        (["-f", "as_file.py"], "as_file.py"),
        (["-f", "as_file.py", "--location-name", "etl"], "etl"),
        ([], "as_module.definitions"),
    ],
    ids=["module", "module_and_folder", "file", "named", "pyproject"],
)
def test_whatever_dagsters_tools_load_by_option_a_worker_loads(fleet, project, options, name):
    write(project / "pyproject.toml", '[tool.dagster]\nmodule_name = "as_module.definitions"\n')
    fleet.start_worker(*options, program=[str(BIN / "dagster-taskiq")])
    (worker,) = fleet.snapshot().live_workers
    assert list(worker.card.locations) == [name]


def test_a_run_without_an_origin_executes_its_steps_and_two_candidates_refuse_it(fleet, tmp_path):
    file = write(tmp_path / "jobs.py", CODE.format(answer="mine"))

    def execute():
        job = internals.ReconstructableJob.for_file(str(file), "etl")
        run = fleet.instance.create_run_for_job(job_def=job.get_definition())
        list(execute_run_iterator(job, run, instance=fleet.instance))
        return fleet.instance.get_run_by_id(run.run_id)

    worker = fleet.start_worker("-f", str(file))
    assert execute().status is SUCCESS
    fleet.stop_worker(worker)
    named = [
        {"python_file": {"relative_path": str(file), "location_name": name}}
        for name in ("red", "blue")
    ]
    fleet.start_worker("-w", workspace(tmp_path / "two.yaml", *named))
    run = execute()
    assert run.status is FAILURE
    (entry,) = fleet.instance.all_logs(run.run_id, of_type=dg.DagsterEventType.STEP_FAILURE)
    sentence = entry.dagster_event.step_failure_data.error.to_string()
    assert "may be of any of red, blue" in sentence


IO = """
import os
import dagster as dg

@dg.io_manager
def our_io(_context):
    open(os.environ["TOUCHED"], "a").write("made")
    raise RuntimeError("the warehouse is down")
"""


def test_a_worker_starts_without_touching_the_users_default_io_manager(fleet, tmp_path):
    touched = write(tmp_path / "touched", "")
    write(tmp_path / "our_io.py", IO)
    file = write(tmp_path / "jobs.py", CODE.format(answer="mine"))
    names = {"MODULE": "our_io", "ATTRIBUTE": "our_io"}
    override = {f"DAGSTER_DEFAULT_IO_MANAGER_{key}": value for key, value in names.items()}
    environment = {**override, "PYTHONPATH": str(tmp_path), "TOUCHED": str(touched)}
    fleet.start_worker("-f", str(file), environment=environment)
    assert touched.read_text() == ""


def test_a_job_and_a_step_of_newer_code_are_refused_with_since_when_and_what_to_do(
    fleet, open_site, tmp_path
):
    file = write(tmp_path / "jobs.py", CODE.format(answer="old"))
    as_it_is = ("-f", str(file), "--reload", "never")
    fleet.start_worker(*as_it_is, slots=2, run_slots=1, queues=["old", "default"])
    newer = CODE.replace("    says()", "    says.alias('newer')()")
    newer = newer.replace("@dg.op\n", "@dg.op(tags={{'dagster-taskiq/queue': 'old'}})\n")
    newer = newer.replace("defs =", "@dg.job\ndef newest():\n    says()\n\ndefs =")
    file.write_text(newer.format(answer="new").replace("[etl]", "[etl, newest]"))
    with open_site(fleet, file) as site:
        gone = site.launch("newest")
        assert fleet.wait_for_run(gone).status is FAILURE
        fleet.start_worker("-f", str(file), slots=0, run_slots=1, queues=["new"])
        unknown = site.launch("etl", {"dagster-taskiq/queue": "new"})
        assert fleet.wait_for_run(unknown).status is FAILURE
    for run_id, what in ((gone, "job 'newest'"), (unknown, "step 'newer' in job 'etl'")):
        said = " ".join(repr(entry) for entry in fleet.instance.all_logs(run_id)).replace("\\", "")
        assert f"had no {what} when this worker loaded it, at 2" in said, said
        assert "`dagster-taskiq worker reload --all`, or restart them" in said
        assert "framework error" not in said
        told = [line for line in fleet.said(run_id) if "when this worker loaded it" in line]
        assert len(told) <= 1, told


def test_nobody_judges_a_namespace_by_another_instance(fleet, make_fleet, tmp_path):
    fleet.start_worker("-f", str(write(tmp_path / "jobs.py", CODE.format(answer="mine"))))
    with make_fleet(namespace=fleet.settings.namespace) as other:
        assert other.instance
        for face in (["status"], ["status", "--json"], ["doctor"]):
            command = [sys.executable, "-m", "dagster_taskiq_kit", *face]
            done = preloaded.run(command, env=other.environment, within_s=60)
            assert done.returncode == 1, (face, done.stdout)
            assert "belongs to Dagster instance" in done.stderr
            assert "Traceback" not in done.stderr
            assert "checks pass" not in done.stdout
