"""What dagster-celery's tests verify of stopping, ordering and routing; each names its upstream test."""

import signal
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

from dagster_taskiq_kit.vocabulary.states import State
from tests.chaos.conftest import MONITORING

from .conftest import Live, open_live

CODE = Path(__file__).parent / "code" / "control_jobs.py"
STATUS = dg.DagsterRunStatus
TEN_TO_ZERO = [
    "ten",
    "nine",
    "eight",
    "seven",
    "six",
    "five",
    "four",
    "three",
    "two",
    "one",
    "zero",
]


@pytest.fixture
def live(make_fleet):
    with make_fleet() as fleet, open_live(fleet, CODE) as made:
        yield made


def test_a_subset_of_a_job(live: Live):
    """Upstream: test_execute_eagerly_diamond_job_subset_on_celery."""
    live.start_worker()
    config = ["--config-json", '{"execution": {"config": {}}}']
    run = live.launch_by_command("subset_job", *config, "--op-selection", "emits")
    _, counts, _ = live.ended(run.run_id)
    assert live.order(run.run_id) == ["emits"]
    assert counts["STEP_SUCCESS"] == 1


def test_an_interrupted_execution_ends_and_what_was_queued_never_begins(live: Live):
    """Upstream: test_terminate_job_on_celery, where steps go on.

    An interrupt that nobody asked for through Dagster is a failure to Dagster, as in process.
    """
    live.start_worker(slots=1)
    command = [sys.executable, "-m", "dagster", "job", "execute", "-f", str(CODE)]
    execution = subprocess.Popen(
        [*command, "-j", "interrupt_job"], env=live.fleet.environment,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        live.fleet.wait_for(lambda: bool(live.fleet.instance.get_runs()), "a run")
        (run,) = live.fleet.instance.get_runs()
        live.wait_for(run.run_id, "STEP_START")
        execution.send_signal(signal.SIGINT)
        run, counts, said = live.ended(run.run_id)
        assert run.status is STATUS.FAILURE
        assert "No user initiated termination request was found" in said
        execution.wait(30)
    finally:
        execution.kill()
        execution.wait()
    began = counts["STEP_START"]
    assert began < 50
    waiting = lambda: sum(queue.backlog for queue in live.fleet.snapshot().queues)  # noqa: E731
    live.fleet.wait_for(lambda: waiting() == 0, "nothing to wait")
    assert live.counts(run.run_id)["STEP_START"] == began


def test_what_breaks_outside_of_the_step_fails_the_step_and_nothing_else(live: Live):
    """Upstream: test_engine_error, where it takes the whole run with it."""
    live.start_worker()
    run, counts, _ = live.run("engine_error")
    assert run.status is STATUS.FAILURE
    assert counts["STEP_FAILURE"] == 1
    assert counts["STEP_SUCCESS"] == 2
    assert "the engine is broken" in live.failure(run).to_string()


def test_a_run_whose_process_leaves_is_failed_by_run_monitoring(make_fleet):
    """Upstream: test_crashy_run, on the in-process executor as there."""
    with make_fleet(config=MONITORING) as fleet, open_live(fleet, CODE) as live:
        live.start_worker()
        run_id = live.launch("crashy_run_job")
        dead = lambda: live.record(run_id).state is State.CRASHED  # noqa: E731
        fleet.wait_for(dead, "its process to leave", lambda: str(live.record(run_id)))
        assert live.monitor() == []
        run, _, said = live.ended(run_id)
        assert run.status is STATUS.FAILURE
        assert "exit code 1" in said


def test_a_run_on_the_old_executor_is_resumed_when_its_worker_is_killed(make_fleet):
    """Upstream never tests it: there, resume raises."""
    short = {"lease_s": 3, "renew_s": 1, "witness_s": 1}
    with make_fleet(config=MONITORING, settings=short) as fleet, open_live(fleet, CODE) as live:
        orchestrating = live.start_worker(slots=0)
        live.start_worker(slots=1, run_slots=0)
        run_id = live.launch("simple_priority_job")
        live.wait_for(run_id, "STEP_SUCCESS")
        orchestrating.kill()
        live.start_worker(slots=0)

        def resumed() -> bool:
            assert live.monitor() == []
            return fleet.instance.count_resume_run_attempts(run_id) == 1

        fleet.wait_for(resumed, "a resume", lambda: "\n".join(fleet.said(run_id)))
        run, counts, _ = live.ended(run_id)
        assert run.status is STATUS.SUCCESS
        assert counts["STEP_START"] == counts["STEP_SUCCESS"] == len(TEN_TO_ZERO)


def test_a_run_that_is_terminated_is_canceled(live: Live):
    """Upstream: test_terminated_run, which pins FAILURE."""
    live.start_worker()
    run_id = live.launch("sleepy_job")
    live.wait_for(run_id, "STEP_START")
    assert live.fleet.instance.run_launcher.terminate(run_id)
    run, _, _ = live.ended(run_id)
    assert run.status is STATUS.CANCELED
    assert not live.fleet.instance.run_launcher.terminate(run_id)


def test_steps_start_in_the_order_of_their_priorities(live: Live):
    """Upstream: test_eager_priority_job, which sorts a list; here a live queue does."""
    live.start_worker(slots=0)
    run_id = live.launch("simple_priority_job")
    waiting = lambda: sum(queue.backlog for queue in live.fleet.snapshot().queues)  # noqa: E731
    live.fleet.wait_for(lambda: waiting() == len(TEN_TO_ZERO), "all steps to be queued")
    live.start_worker(slots=1, run_slots=0)
    live.ended(run_id)
    assert live.order(run_id) == TEN_TO_ZERO


def test_the_run_of_higher_priority_starts_first(live: Live):
    """Upstream: test_run_priority_job, which asserts no more than that the low one ends."""
    low, high = live.launch("low_job"), live.launch("hi_job")
    live.start_worker(run_slots=1)
    runs = [live.ended(run_id)[0] for run_id in (low, high)]
    assert [run.status for run in runs] == [STATUS.SUCCESS, STATUS.SUCCESS]
    began_s = [live.fleet.instance.get_run_stats(run_id).start_time for run_id in (high, low)]
    assert began_s == sorted(began_s)


def test_a_step_waits_until_its_queue_is_served(live: Live):
    """Upstream: test_multiqueue."""
    live.start_worker()
    run_id = live.launch("multiqueue_job")
    live.wait_for(run_id, "STEP_SUCCESS")
    row = lambda: [q for q in live.fleet.snapshot().queues if q.name == "fooqueue"]  # noqa: E731
    live.fleet.wait_for(lambda: bool(row()) and row()[0].backlog == 1, "the step to wait")
    assert live.order(run_id) == ["emits"]
    live.start_worker(queues=["fooqueue"], run_slots=0)
    run, _, _ = live.ended(run_id)
    assert run.status is STATUS.SUCCESS
    assert live.order(run_id) == ["emits", "in_fooqueue"]
