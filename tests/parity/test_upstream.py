"""What dagster-celery's own tests verify, on a live fleet of the kit; each names its upstream test.

Upstream executes most of them twice, on a worker and eagerly; here there is one way to execute a step.
"""

from pathlib import Path

import dagster as dg
import pytest

from .conftest import open_live

CODE = Path(__file__).parent / "code" / "upstream_jobs.py"
STATUS = dg.DagsterRunStatus


@pytest.fixture(scope="module")
def live(make_fleet):
    with make_fleet() as fleet, open_live(fleet, CODE) as made:
        made.start_worker(slots=3)
        yield made


def test_a_job_of_one_step(live):
    """Upstream: test_execute_on_celery_default, test_execute_eagerly_on_celery, test_successful_run."""
    run, counts, _ = live.run("test_job")
    assert run.status is STATUS.SUCCESS
    assert live.output(run, "simple") == 1
    for event in ("STEP_START", "STEP_OUTPUT", "HANDLED_OUTPUT", "STEP_SUCCESS"):
        assert counts[event] == 1


def test_two_steps_in_a_row(live):
    """Upstream: test_execute_serial_on_celery, test_execute_eagerly_serial_on_celery."""
    run, counts, _ = live.run("test_serial_job")
    assert live.output(run, "add_one") == 2
    assert counts["STEP_SUCCESS"] == 2
    assert counts["LOADED_INPUT"] == 1


def test_a_diamond(live):
    """Upstream: test_execute_diamond_job_on_celery, test_execute_eagerly_diamond_job_on_celery."""
    run, counts, _ = live.run("test_diamond_job")
    values = [
        live.output(run, "emit_values", "value_one"), live.output(run, "emit_values", "value_two"),
        live.output(run, "add_one"), live.output(run, "renamed"), live.output(run, "subtract"),
    ]  # fmt: skip
    assert values == [1, 2, 2, 3, -1]
    assert counts["STEP_SUCCESS"] == 4


def test_ten_steps_at_once(live):
    """Upstream: test_execute_parallel_job_on_celery, test_execute_eagerly_parallel_job_on_celery."""
    _, counts, _ = live.run("test_parallel_job")
    assert counts["STEP_SUCCESS"] == 11


def test_nested_graphs(live):
    """Upstream: test_execute_composite_job_on_celery, test_execute_eagerly_composite_job_on_celery."""
    run, counts, _ = live.run("composite_job")
    assert counts["STEP_SUCCESS"] == 16
    assert live.output(run, "add_eight.add_four.add_two.add_one") == 16


def test_optional_outputs(live):
    """Upstream: test_execute_optional_outputs_job_on_celery,
    test_execute_eagerly_optional_outputs_job_on_celery.
    """
    _, counts, _ = live.run("test_optional_outputs")
    assert counts["STEP_SUCCESS"] == 2
    assert counts["STEP_SKIPPED"] == 2


def test_a_failure_keeps_its_cause_and_what_follows_is_untouched(live):
    """Upstream: test_execute_fails_job_on_celery, test_execute_eagerly_fails_job_on_celery."""
    run, counts, said = live.run("test_fails")
    assert run.status is STATUS.FAILURE
    assert counts["STEP_FAILURE"] == 1
    assert counts["STEP_START"] == 1
    assert "argjhgjh" in live.failure(run).cause.message
    assert "It must be skipped." not in said


def test_a_requested_retry(live):
    """Upstream: test_execute_eagerly_retries_job_on_celery."""
    _, counts, _ = live.run("test_retries")
    for event in ("STEP_START", "STEP_UP_FOR_RETRY", "STEP_RESTARTED", "STEP_FAILURE"):
        assert counts[event] == 1


def test_tags_of_kubernetes_do_no_harm(live):
    """Upstream: test_execute_eagerly_resources_limit_job_on_celery."""
    _, counts, _ = live.run("test_resources_limit")
    assert counts["STEP_SUCCESS"] == 1


def test_a_process_that_leaves_is_a_failure_at_once(live):
    """Upstream: test_crashy_run, which needs an iteration of run monitoring."""
    run, counts, _ = live.run("crashy_job")
    assert run.status is STATUS.FAILURE
    assert counts["STEP_FAILURE"] == 1
    assert "exit code 1" in live.failure(run).message


def test_sys_exit_is_a_failure_of_the_step(live):
    """Upstream: test_exity_run."""
    run, _, said = live.run("exity_job")
    assert run.status is STATUS.FAILURE
    assert 'Execution of step "exity_op" failed.' in said
    assert "Execution of run for \"exity_job\" failed. Steps failed: ['exity_op']" in said
