"""Launcher, workers and executor together on one fleet: what must never happen there, does not."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import dagster as dg
import psutil
import pytest
import yaml

from dagster_taskiq_kit.dagster_internals.postgres.pool import instance_id
from dagster_taskiq_kit.dagster_internals.workspaces import launch_job, workspace_of
from dagster_taskiq_kit.testing.fleet import FleetError
from tests.chaos.processes import alive

CODE = Path(__file__).parent / "code" / "fleet_jobs.py"


@pytest.fixture
def launch(fleet, tmp_path):
    """Launches a job of the code file through the fleet's launcher; returns the run id."""
    workspace = tmp_path / "workspace.yaml"
    target = {"relative_path": str(CODE), "location_name": "fleet_jobs.py"}
    workspace.write_text(yaml.safe_dump({"load_from": [{"python_file": target}]}))
    with workspace_of(fleet.instance, [str(workspace)]) as context:
        yield lambda job: launch_job(fleet.instance, context, job)


def has_begun(fleet, run_id):
    return any(" STEP_START " in line for line in fleet.said(run_id))


def descendants(worker):
    return psutil.Process(worker.pid).children(recursive=True)


def gone(processes):
    return not any(alive(process.pid) for process in processes)


def test_one_step_slot_and_one_run_slot_cannot_deadlock_three_runs(fleet, launch):
    fleet.start_worker("-f", str(CODE), slots=1, run_slots=1)
    runs = [launch("two_steps") for _ in range(3)]
    assert {fleet.wait_for_run(run).status for run in runs} == {dg.DagsterRunStatus.SUCCESS}


def test_a_step_that_leaves_without_a_word_is_retried_by_its_own_policy(fleet, launch):
    fleet.start_worker("-f", str(CODE))
    run_id = launch("crashes_once")
    assert fleet.wait_for_run(run_id).status is dg.DagsterRunStatus.SUCCESS
    said = fleet.said(run_id)
    assert sum(" STEP_UP_FOR_RETRY " in line for line in said) == 1
    assert sum(" STEP_RESTARTED " in line for line in said) == 1
    (entry,) = fleet.instance.all_logs(run_id, of_type=dg.DagsterEventType.STEP_UP_FOR_RETRY)
    assert "left with exit code 3" in str(entry.dagster_event.step_retry_data.error)


def test_a_cancelled_run_ends_canceled_and_its_processes_are_gone(fleet, launch):
    worker = fleet.start_worker("-f", str(CODE))
    run_id = launch("sleeps")
    fleet.wait_for(lambda: has_begun(fleet, run_id), "the step to begin")
    assert fleet.instance.run_launcher.terminate(run_id)
    assert fleet.wait_for_run(run_id).status is dg.DagsterRunStatus.CANCELED
    fleet.wait_for(
        lambda: not any(w.held for w in fleet.snapshot().workers), "the worker to hold nothing"
    )
    assert worker.poll() is None
    assert not fleet.instance.run_launcher.terminate(run_id)


def test_a_queued_run_is_cancelled_at_once_and_never_runs(fleet, launch):
    run_id = launch("two_steps")  # no worker yet
    assert fleet.instance.run_launcher.terminate(run_id)
    run = fleet.instance.get_run_by_id(run_id)
    assert run is not None
    assert run.status is dg.DagsterRunStatus.CANCELED
    fleet.start_worker("-f", str(CODE))
    other = launch("two_steps")
    assert fleet.wait_for_run(other).status is dg.DagsterRunStatus.SUCCESS
    assert not has_begun(fleet, run_id)


def test_a_killed_worker_leaves_no_process_behind(fleet, launch):
    worker = fleet.start_worker("-f", str(CODE))
    run_id = launch("sleeps")
    fleet.wait_for(lambda: has_begun(fleet, run_id), "the step to begin")
    processes = descendants(worker)
    assert len(processes) >= 3  # fork server, run child, step child
    worker.send_signal(signal.SIGKILL)
    fleet.wait_for(lambda: gone(processes), "the worker's processes to be gone")


def test_a_stopped_worker_hands_its_run_over_and_another_finishes_it(fleet, launch):
    both = ("-f", str(CODE))
    first = fleet.start_worker(*both, slots=0, run_slots=1)
    steps = fleet.start_worker(*both, slots=1, run_slots=0)
    run_id = launch("two_steps")
    assert fleet.wait_for_run(run_id).status is dg.DagsterRunStatus.SUCCESS
    run_id = launch("sleeps")
    fleet.wait_for(lambda: has_begun(fleet, run_id), "the step to begin")
    assert fleet.stop_worker(first) == 0
    fleet.start_worker(*both, slots=0, run_slots=1)
    fleet.wait_for(
        lambda: any("Resuming on taskiq workers" in line for line in fleet.said(run_id)),
        "the other worker to resume the run",
        lambda: "\n".join(fleet.said(run_id)),
    )
    assert fleet.instance.run_launcher.terminate(run_id)
    assert fleet.wait_for_run(run_id).status is dg.DagsterRunStatus.CANCELED
    assert steps.poll() is None
    assert sum(" STEP_START " in line for line in fleet.said(run_id)) == 1


@pytest.mark.parametrize("job", ["in_process", "multiprocess"])
def test_our_launcher_launches_jobs_on_dagsters_own_executors(fleet, launch, job):
    fleet.start_worker("-f", str(CODE))
    run_id = launch(job)
    assert fleet.wait_for_run(run_id).status is dg.DagsterRunStatus.SUCCESS
    assert sum(" STEP_SUCCESS " in line for line in fleet.said(run_id)) == 2


def test_a_stopped_worker_lets_a_run_that_cannot_be_resumed_finish(fleet, launch):
    worker = fleet.start_worker("-f", str(CODE))
    run_id = launch("in_process")
    fleet.wait_for(lambda: has_begun(fleet, run_id), "the step to begin")
    assert fleet.stop_worker(worker) == 0
    assert fleet.wait_for_run(run_id).status is dg.DagsterRunStatus.SUCCESS


def test_a_run_that_cannot_be_resumed_fails_with_a_sentence_and_executes_nothing_twice(
    fleet, launch
):
    impatient = {"DAGSTER_TASKIQ_DRAIN_TIMEOUT_S": "0"}
    worker = fleet.start_worker("-f", str(CODE), environment=impatient)
    run_id = launch("in_process")
    fleet.wait_for(lambda: has_begun(fleet, run_id), "the step to begin")
    assert fleet.stop_worker(worker) == 0
    fleet.start_worker("-f", str(CODE))
    assert fleet.wait_for_run(run_id).status is dg.DagsterRunStatus.FAILURE
    said = fleet.said(run_id)
    assert any("cannot resume" in line and "run_retries" in line for line in said)
    assert sum(" STEP_START " in line for line in said) == 1


def test_a_bad_tag_fails_the_run_with_one_sentence(fleet, launch):
    fleet.start_worker("-f", str(CODE))
    run_id = launch("bad_tag")
    assert fleet.wait_for_run(run_id).status is dg.DagsterRunStatus.FAILURE
    (entry,) = fleet.instance.all_logs(run_id, of_type=dg.DagsterEventType.RUN_FAILURE)
    error = entry.dagster_event.job_failure_data.error.to_string()
    assert "'dagster-taskiq/priority' of step 'badly_tagged' is 'high'" in error


def test_an_in_memory_io_manager_is_refused_before_the_run_is_made(launch):
    with pytest.raises(Exception, match="Please use a persistent IO manager"):
        launch("in_memory")


def test_a_fleet_leaves_the_environment_as_it_was(make_fleet):
    before = dict(os.environ)
    with make_fleet() as fleet:
        assert fleet.instance is not None
        assert os.environ["DAGSTER_TASKIQ_NAMESPACE"] == fleet.settings.namespace
    assert dict(os.environ) == before


def test_two_fleets_in_one_process_launch_to_their_own_brokers(make_fleet):
    with make_fleet() as one, make_fleet() as other:
        assert one.instance is not other.instance
        found = [each.instance.run_launcher.settings.namespace for each in (one, other)]
        assert found == [one.settings.namespace, other.settings.namespace]


def test_processes_that_first_use_an_instance_at_once_agree_on_its_id(fleet):
    code = (
        "import dagster as dg; from dagster_taskiq_kit.dagster_internals.postgres.pool import instance_id;"
        "print(instance_id(dg.DagsterInstance.get()))"
    )
    fleet.instance.get_runs(limit=1)  # the tables are there, the id is not
    readers = [
        subprocess.Popen(
            [sys.executable, "-c", code], env=fleet.environment, stdout=subprocess.PIPE, text=True
        )
        for _ in range(4)
    ]
    said = {reader.communicate(timeout=60)[0].split()[-1] for reader in readers}
    assert said == {instance_id(fleet.instance)}


def test_code_that_does_not_import_shows_the_users_own_traceback(fleet, tmp_path):
    broken = tmp_path / "broken.py"
    broken.write_text("def load():\n    raise RuntimeError('my own mistake')\n\nload()\n")
    with pytest.raises(FleetError) as caught:
        fleet.start_worker("-f", str(broken))
    said = str(caught.value)
    assert "Code location 'broken.py' failed to load. Its own error was:" in said
    assert "RuntimeError: my own mistake" in said


@pytest.mark.parametrize(
    ("arguments", "environment", "sentence"),
    [
        (["-f", "gone.py"], {}, "There is no file 'gone.py' to load definitions from."),
        (["-f", str(CODE), "-q", "a b"], {}, "Queue: 'a b' is not a queue name"),
        (["-f", str(CODE), "--slots", "-1"], {}, "'--slots': -1 is not in the range"),
        (["-f", str(CODE)], {"DAGSTER_HOME": ""}, "DAGSTER_HOME is not set"),
        (["-f", str(CODE)], {"DAGSTER_TASKIQ_URL": "http://h"}, "'http://h' is not a broker url"),
        (["-f", str(CODE)], {"DAGSTER_TASKIQ_URL": ""}, "No broker url is configured"),
    ],
)
def test_a_worker_that_cannot_start_says_why_in_one_sentence(
    fleet, arguments, environment, sentence
):
    with pytest.raises(FleetError) as caught:
        fleet.start_worker(*arguments, environment=environment)
    said = str(caught.value)
    assert sentence in said
    assert "Traceback" not in said
