"""kill -9 of a worker: nothing hangs, nothing runs twice, and the log says who was lost."""

import signal

import dagster as dg
import psutil

from dagster_taskiq_kit.vocabulary.messages import run_task_id
from dagster_taskiq_kit.vocabulary.tags import TASK_ID_TAG

from .conftest import Chaos

STATUS = dg.DagsterRunStatus


def fork_servers(worker):
    return psutil.Process(worker.pid).children()


def test_a_step_whose_worker_is_killed_fails_with_the_worker_named(chaos: Chaos):
    chaos.start_orchestrating()
    worker = chaos.start_executing()
    run_id = chaos.launch("one")
    chaos.wait_for_bodies("first")
    chaos.kill(worker)
    assert chaos.fleet.wait_for_run(run_id).status is STATUS.FAILURE
    (entry,) = chaos.fleet.instance.all_logs(run_id, of_type=dg.DagsterEventType.STEP_FAILURE)
    said = entry.dagster_event.step_failure_data.error.message
    assert "was lost on worker worker-2-" in said
    assert "was not heard for" in said
    assert len(chaos.bodies("first")) == 1
    assert not psutil.pid_exists(chaos.bodies("first")[0].pid)


def test_a_step_whose_worker_is_killed_is_retried_by_its_own_policy(chaos: Chaos):
    chaos.start_orchestrating()
    worker = chaos.start_executing()
    run_id = chaos.launch("retried")
    chaos.wait_for_bodies("patient")
    chaos.kill(worker)
    chaos.start_executing()
    chaos.wait_for_bodies("patient", 2)
    chaos.open_gates("patient")
    assert chaos.fleet.wait_for_run(run_id).status is STATUS.SUCCESS
    assert [entry.attempt for entry in chaos.bodies("patient")] == [1, 2]
    assert len(chaos.bodies("patient", "end")) == 1
    assert not chaos.overlaps("patient")


def test_worker_lost_retries_grants_retries_beyond_the_policy(chaos: Chaos):
    chaos.start_orchestrating()
    worker = chaos.start_executing()
    run_id = chaos.launch("forgiving")
    chaos.wait_for_bodies("first")
    chaos.kill(worker)
    chaos.open_gates("first")
    chaos.start_executing()
    assert chaos.fleet.wait_for_run(run_id).status is STATUS.SUCCESS
    assert [entry.attempt for entry in chaos.bodies("first")] == [1, 2]


def test_a_step_that_kills_each_of_its_workers_ends(chaos: Chaos):
    chaos.start_orchestrating()
    run_id = chaos.launch("killer")
    for count in (1, 2, 3):
        chaos.start_executing()
        chaos.wait_for_bodies("kills_its_worker", count)
    assert chaos.fleet.wait_for_run(run_id).status is STATUS.FAILURE
    assert [entry.attempt for entry in chaos.bodies("kills_its_worker")] == [1, 2, 3]


def test_a_message_whose_worker_is_killed_between_claim_and_start_runs_once_elsewhere(chaos: Chaos):
    chaos.start_orchestrating()
    worker = chaos.start_executing(slots=1)
    for server in fork_servers(worker):
        server.send_signal(signal.SIGSTOP)
    run_id = chaos.launch("one")
    fleet = chaos.fleet
    fleet.wait_for(lambda: any(q.claimed for q in fleet.snapshot().queues), "the claim")
    chaos.kill(worker)
    for server in fork_servers_left(chaos):
        server.kill()
    chaos.open_gates("first")
    chaos.start_executing()
    assert fleet.wait_for_run(run_id).status is STATUS.SUCCESS
    assert len(chaos.bodies("first")) == 1


def fork_servers_left(chaos: Chaos):
    """Stopped fork servers of this fleet, which cannot see yet that their worker is gone."""
    mine = []
    for process in psutil.process_iter(["cmdline", "status"]):
        command = " ".join(process.info["cmdline"] or [])
        if "dagster_taskiq_kit" in command and process.info["status"] == psutil.STATUS_STOPPED:
            environment = process.environ()
            if environment.get("DAGSTER_HOME") == str(chaos.fleet.home):
                mine.append(process)
    return mine


def test_a_run_whose_orchestrating_worker_is_killed_goes_on_and_repeats_no_step(chaos: Chaos):
    orchestrating = chaos.start_orchestrating()
    chaos.start_executing()
    run_id = chaos.launch("chain")
    chaos.wait_for_bodies("first")
    chaos.kill(orchestrating)
    chaos.start_orchestrating()
    chaos.fleet.wait_for(lambda: resumed(chaos, run_id), "a resume", chaos.explain)
    chaos.open_gates("first", "second")
    run = chaos.fleet.wait_for_run(run_id)
    assert run.status is STATUS.SUCCESS
    assert run.tags[TASK_ID_TAG] == run_task_id(run_id, 1)
    for step in ("first", "second"):
        assert len(chaos.bodies(step)) == len(chaos.bodies(step, "end")) == 1


def resumed(chaos: Chaos, run_id: str) -> bool:
    assert chaos.monitor() == []
    return chaos.fleet.instance.count_resume_run_attempts(run_id) == 1


def test_all_workers_killed_at_once_and_one_started_later_ends_every_run(chaos: Chaos):
    workers = [chaos.start_worker(), chaos.start_worker()]
    runs = [chaos.launch("retried") for _ in range(3)]
    chaos.wait_for_bodies("patient", 2)
    for worker in workers:
        chaos.kill(worker)
    chaos.open_gates("patient")
    chaos.start_worker()

    def over() -> bool:
        assert chaos.monitor() == []
        return all(chaos.fleet.instance.get_run_by_id(run).is_finished for run in runs)

    chaos.fleet.wait_for(over, "all runs to end", chaos.explain, within_s=90)
    assert {chaos.fleet.instance.get_run_by_id(run).status for run in runs} == {STATUS.SUCCESS}
    assert not chaos.overlaps("patient")
