"""What steps print is on the worker's own stdout, whole, in order, with run and step in front."""

from pathlib import Path

import dagster as dg
import pytest

CODE = Path(__file__).parent / "code" / "printing_jobs.py"
STATUS = dg.DagsterRunStatus
NOWHERE = {
    "compute_logs": {
        "module": "dagster._core.storage.noop_compute_log_manager", "class": "NoOpComputeLogManager",
    }
}  # fmt: skip


def lines_of(site, run_id: str, step: str) -> list[str]:
    prefix = f"[{run_id[:8]} {step}] "
    said = site.fleet.worker_log(1).read_text().splitlines()
    return [line.removeprefix(prefix) for line in said if line.startswith(prefix)]


def test_what_a_step_prints_is_on_the_workers_stdout_in_order(site):
    site.start_worker()
    run_id = site.launch("talking")
    assert site.fleet.wait_for_run(run_id).status is STATUS.SUCCESS
    printed = lambda: lines_of(site, run_id, "talks")  # noqa: E731
    site.wait_for(lambda: "on stderr" in printed(), "its last line", run_id)
    numbered = [line for line in printed() if line.startswith("line ")]
    assert numbered == [f"line {number}" for number in range(500)]
    assert printed().count("said by a program") == 1


def test_the_last_words_of_a_step_that_is_killed_are_printed(site):
    site.start_worker()
    run_id = site.launch("dying")
    assert site.fleet.wait_for_run(run_id).status is STATUS.FAILURE
    printed = lambda: lines_of(site, run_id, "dies")  # noqa: E731
    site.wait_for(lambda: "without an end" in printed(), "its last words", run_id)
    assert printed().count("last words") == 1


def test_a_worker_may_leave_what_steps_print_to_the_compute_logs(site):
    worker = site.start_worker("--mirror-steps", "off")
    run_id = site.launch("talking")
    assert site.fleet.wait_for_run(run_id).status is STATUS.SUCCESS
    assert site.fleet.stop_worker(worker) == 0
    assert "said by a program" not in site.fleet.worker_log(1).read_text()


@pytest.mark.parametrize("config", [NOWHERE], ids=["noop"])
def test_without_compute_logs_it_is_there_as_it_was_printed(make_fleet, open_site, config):
    with make_fleet(config=config) as fleet, open_site(fleet, CODE) as site:
        worker = site.start_worker()
        run_id = site.launch("talking")
        assert fleet.wait_for_run(run_id).status is STATUS.SUCCESS
        assert fleet.stop_worker(worker) == 0
        assert "said by a program" in fleet.worker_log(1).read_text()
