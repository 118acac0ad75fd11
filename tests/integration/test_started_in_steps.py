"""What a step starts works as under Dagster's own executors, and the next step sees nothing of it."""

from pathlib import Path

import dagster as dg
import pytest

CODE = Path(__file__).parent / "code" / "starting_jobs.py"
SUCCESS = dg.DagsterRunStatus.SUCCESS


@pytest.fixture(params=["auto", "never"], ids=["warm", "cold"])
def served(request, fleet, open_site, monkeypatch):
    """A site with one worker, served warm or cold."""
    monkeypatch.setenv("STARTING_FOLDER", str(fleet.home))
    with open_site(fleet, CODE) as site:
        environment = {"STARTING_FOLDER": str(fleet.home)}
        site.start_worker("--warm", request.param, slots=2, environment=environment)
        yield site


def failures(fleet, run_id):
    """Return the first line of why each step failed."""
    return [line for line in fleet.said(run_id) if "STEP_FAILURE" in line]


def test_a_step_starts_everything_that_code_starts(served):
    fleet = served.fleet
    run_id = served.launch("starting_everything")
    run = fleet.wait_for_run(run_id, within_s=200)
    assert failures(fleet, run_id) == []
    assert run.status is SUCCESS, fleet.said(run_id)
    assert "killing it" not in fleet.worker_log(1).read_text()
    left = Path("/dev/shm") / (fleet.home / "left_memory").read_text().strip("/")
    served.wait_for(lambda: not left.exists(), "the resource tracker to free what was left")


def test_a_step_sees_nothing_of_what_the_one_before_it_changed_in_its_process(served):
    fleet = served.fleet
    run_id = served.launch("changing_everything")
    run = fleet.wait_for_run(run_id)
    assert failures(fleet, run_id) == []
    assert run.status is SUCCESS, fleet.said(run_id)
