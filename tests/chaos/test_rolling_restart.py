"""Every worker is restarted while a run executes: it goes on, and no finished step runs again."""

import subprocess
import sys
from collections import Counter

import dagster as dg

from dagster_taskiq_kit.vocabulary.states import Kind

from .conftest import Chaos

STATUS = dg.DagsterRunStatus


def holder_of_run(chaos: Chaos, workers: dict):
    """The worker process that orchestrates, by its card."""
    for reading in chaos.fleet.snapshot().workers:
        if any(each.task_id.startswith(f"{Kind.RUN.value}:") for each in reading.held):
            return workers.get(reading.card.pid)
    return None


def finished(chaos: Chaos) -> int:
    return sum(entry.what == "end" for entry in chaos.ledger())


def test_a_rolling_restart_during_a_long_run_repeats_no_finished_step(make_chaos):
    with make_chaos(settings={"drain_timeout_s": 2}) as chaos:
        chaos.fleet.instance.event_log_storage.set_concurrency_slots("narrow", 1)
        workers = {}
        for _ in range(2):
            worker = chaos.start_worker(slots=2, run_slots=2)
            workers[worker.pid] = worker
        run_id = chaos.launch("rolling")
        for threshold in (3, 18, 36):
            chaos.fleet.wait_for(
                lambda: finished(chaos) >= threshold and holder_of_run(chaos, workers) is not None,  # noqa: B023
                f"{threshold} steps to end", chaos.explain,
            )  # fmt: skip
            # The new one first, as a rolling deploy does; then the one that orchestrates.
            old = holder_of_run(chaos, workers)
            new = chaos.start_worker(slots=2, run_slots=2)
            workers[new.pid] = new
            assert chaos.fleet.stop_worker(old) == 0
            del workers[old.pid]
        chaos.open_gates("longer_than_a_drain")
        run = chaos.fleet.wait_for_run(run_id, 170)
        assert run.status is STATUS.SUCCESS, chaos.explain()
        said = chaos.fleet.said(run_id)
        assert sum("Resuming on taskiq workers" in line for line in said) >= 3
        assert chaos.fleet.instance.count_resume_run_attempts(run_id) == 0  # a deploy spends none
        assert len(said) > 1_000
        ends = Counter(entry.step for entry in chaos.ledger() if entry.what == "end")
        assert {step for step, count in ends.items() if count != 1} == set()
        assert len(ends) == 52 + 3 + 4
        skipped = chaos.fleet.instance.all_logs(run_id, of_type=dg.DagsterEventType.STEP_SKIPPED)
        assert [entry.step_key for entry in skipped] == ["never"]
        pool = chaos.fleet.instance.event_log_storage.get_concurrency_info("narrow")
        assert pool.active_slot_count == 0


def test_worker_drain_and_terminate_end_workers_that_run_elsewhere(chaos: Chaos):
    first, second = chaos.start_worker(), chaos.start_worker()
    run = lambda *args: subprocess.run(  # noqa: E731
        [sys.executable, "-m", "dagster_taskiq_kit", "worker", *args],
        env=chaos.fleet.environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert "worker-1" in run("list").stdout
    refused = run("drain", "nobody")
    assert refused.returncode == 1
    assert "There is no worker 'nobody'; known are: worker-1, worker-2." in refused.stderr
    assert "was told to drain" in run("drain", "worker-1").stdout
    assert first.wait(60) == 0
    assert second.poll() is None
    assert "was told to end" in run("terminate", "--all").stdout
    assert second.wait(60) == 0
