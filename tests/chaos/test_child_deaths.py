"""A child dies or exceeds a limit: its step ends with the cause in words, its worker is not touched."""

import time

import dagster as dg
import psutil

from .conftest import Chaos

STATUS = dg.DagsterRunStatus


def error_of(chaos: Chaos, run_id: str) -> str:
    (entry,) = chaos.fleet.instance.all_logs(run_id, of_type=dg.DagsterEventType.STEP_FAILURE)
    return entry.dagster_event.step_failure_data.error.message


def test_each_death_of_a_child_is_told_with_its_cause_and_touches_nobody_else(chaos: Chaos):
    worker = chaos.start_worker("--max-memory-per-child", "300", slots=3)
    bystander = chaos.launch("one")
    chaos.wait_for_bodies("first")
    sentences = {
        "segfaults": ["killed by SIGSEGV", "Last lines of its stderr", "touch what is not mine"],
        "exits_3": ["left with exit code 3"],
        "eats_memory": ["more than its limit of 300 MiB (--max-memory-per-child"],
        "too_slow": ["longer than its limit of 1 s (tag 'dagster-taskiq/timeout')"],
    }
    for op, said in sentences.items():
        run_id = chaos.launch(f"job_{op}")
        assert chaos.fleet.wait_for_run(run_id).status is STATUS.FAILURE
        error = error_of(chaos, run_id)
        assert [each for each in said if each not in error] == [], error
        (body,) = chaos.bodies(op)
        assert not psutil.pid_exists(body.pid)
    assert worker.poll() is None
    chaos.open_gates("first")
    assert chaos.fleet.wait_for_run(bystander).status is STATUS.SUCCESS


def test_a_grandchild_that_outlives_its_step_is_killed_and_a_flood_of_output_is_kept(chaos: Chaos):
    chaos.start_worker()
    run_id = chaos.launch("job_leaves_a_grandchild")
    assert chaos.fleet.wait_for_run(run_id).status is STATUS.SUCCESS
    grandchild = int((chaos.ledger_file.parent / "grandchild").read_text())
    chaos.fleet.wait_for(lambda: not psutil.pid_exists(grandchild), "the grandchild to be gone")
    run_id = chaos.launch("job_floods_stdout")
    assert chaos.fleet.wait_for_run(run_id).status is STATUS.SUCCESS
    written = sum(path.stat().st_size for path in (chaos.fleet.home / "storage").rglob("*.out"))
    assert written >= 20_000_000


def test_a_step_of_four_leases_runs_once(chaos: Chaos):
    chaos.start_worker()
    chaos.start_worker()
    run_id = chaos.launch("one")
    chaos.wait_for_bodies("first")
    (body,) = chaos.bodies("first")
    born = psutil.Process(body.pid).create_time()
    chaos.fleet.wait_for(lambda: time.time() - born > 4 * chaos.fleet.settings.lease_s, "4 leases")
    chaos.open_gates("first")
    assert chaos.fleet.wait_for_run(run_id).status is STATUS.SUCCESS
    assert len(chaos.bodies("first")) == 1
