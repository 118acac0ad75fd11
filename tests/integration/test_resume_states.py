"""A run whose orchestrator is stopped goes on elsewhere, whatever state it was in at that moment."""

from pathlib import Path

import dagster as dg
import pytest

from dagster_taskiq_kit.broker import readings
from dagster_taskiq_kit.vocabulary.messages import run_task_id, step_task_id
from dagster_taskiq_kit.vocabulary.states import State

CODE = Path(__file__).parent / "code" / "resume_jobs.py"
IN_POOL = [f"in_pool_{number}" for number in range(3)]


class HandOver:
    """A run, the worker that orchestrates it, and another that executes three steps at once.

    Args:
        site: Fleet and code.
    """

    def __init__(self, site):
        self.site = site
        self.steps = site.start_worker(slots=3, run_slots=0)
        self.start_orchestrating()
        self.run_id = ""

    def start_orchestrating(self):
        self.orchestrating = self.site.start_worker(slots=0, run_slots=1)

    def launch(self, job):
        self.run_id = self.site.launch(job)

    def wait_until(self, true, what):
        self.site.wait_for(true, what, self.run_id)

    def said(self, kind, step_key):
        lines = self.site.fleet.said(self.run_id)
        return sum(line.startswith(f"{step_key} {kind} ") for line in lines)

    def state_of(self, step_key, attempt=1):
        record = readings.fetch(
            self.site.fleet.broker, step_task_id(self.run_id, step_key, attempt)
        )
        return record and record.state

    def hand_over(self):
        """Stop the orchestrating worker and start another; returns when it has resumed the run."""
        assert self.site.fleet.stop_worker(self.orchestrating) == 0
        record = readings.fetch(self.site.fleet.broker, run_task_id(self.run_id, 0))
        assert record.state is State.QUEUED
        self.start_orchestrating()
        self.wait_until(
            lambda: any("Resuming on taskiq" in line for line in self.site.fleet.said(self.run_id)),
            "another worker to resume the run",
        )

    def succeeds(self, bodies):
        """The run succeeds, and exactly these bodies ran, each as often as it is named."""
        self.site.open_gate(self.run_id)
        assert self.site.fleet.wait_for_run(self.run_id).status is dg.DagsterRunStatus.SUCCESS
        assert sorted(self.site.bodies(self.run_id)) == sorted(bodies)
        assert self.steps.poll() is None


@pytest.fixture(scope="module")
def hand_over(make_fleet, open_site):
    """One fleet for all tests: what they share is two workers with nothing to do."""
    with make_fleet() as fleet, open_site(fleet, CODE) as site:
        yield HandOver(site)


def test_a_run_with_a_skip_in_its_log_is_resumed(hand_over):
    hand_over.launch("skipped_branch")
    hand_over.wait_until(
        lambda: hand_over.said("STEP_SKIPPED", "behind_the_skipped"), "the skip to be written"
    )
    hand_over.wait_until(lambda: hand_over.said("STEP_START", "at_gate"), "the other way to run")
    hand_over.hand_over()
    hand_over.succeeds(["takes_one_way", "at_gate", "after"])
    assert hand_over.said("STEP_SKIPPED", "never_runs") == 1
    assert hand_over.said("STEP_SKIPPED", "behind_the_skipped") == 1


def test_a_run_with_a_delayed_retry_pending_is_resumed_and_retries_once(hand_over):
    hand_over.launch("delayed_retry")
    hand_over.wait_until(
        lambda: hand_over.said("STEP_UP_FOR_RETRY", "fails_once"), "the step to wait for its retry"
    )
    hand_over.hand_over()
    hand_over.succeeds(["fails_once", "fails_once", "after"])
    first, second, _ = hand_over.site.ledger(hand_over.run_id)
    assert (first.retry_number, second.retry_number) == (0, 1)
    assert hand_over.said("STEP_RESTARTED", "fails_once") == 1


@pytest.fixture
def pool(hand_over):
    """A pool with one slot: returns how many steps hold it, and how many it has on its list."""
    storage = hand_over.site.instance.event_log_storage
    storage.set_concurrency_slots("one_at_a_time", 1)

    def held_and_listed():
        info = storage.get_concurrency_info("one_at_a_time")
        return len(info.claimed_slots), len(info.pending_steps)

    return held_and_listed


def fill(hand_over, pool):
    """Launch the job of which one step holds the pool and two wait for it."""
    hand_over.launch("full_pool")
    hand_over.wait_until(
        lambda: sum(hand_over.said("STEP_START", name) for name in IN_POOL) == 1,
        "one step to hold the pool",
    )
    hand_over.wait_until(
        lambda: sum(hand_over.said("ENGINE_EVENT", name) for name in IN_POOL) == 2,
        "the others to wait for it",
    )
    assert pool() == (1, 3)


def spans(hand_over):
    """Return from when to when each step of the pool ran, one after another."""
    stats = hand_over.site.instance.get_run_step_stats(hand_over.run_id, IN_POOL)
    return sorted((stat.start_time, stat.end_time) for stat in stats)


def test_a_run_with_a_full_pool_is_resumed_and_never_exceeds_it(hand_over, pool):
    fill(hand_over, pool)
    hand_over.hand_over()
    assert pool() == (1, 3)
    hand_over.succeeds([*IN_POOL, "sum_up"])
    (_, first_end), (second_start, second_end), (third_start, _) = spans(hand_over)
    assert first_end <= second_start
    assert second_end <= third_start
    assert pool() == (0, 0)


def test_a_pool_whose_holder_ended_while_nobody_orchestrated_is_free_again(hand_over, pool):
    fill(hand_over, pool)
    (holder,) = hand_over.site.bodies(hand_over.run_id)
    assert hand_over.site.fleet.stop_worker(hand_over.orchestrating) == 0
    hand_over.site.open_gate(hand_over.run_id)
    hand_over.wait_until(
        lambda: hand_over.state_of(holder) is State.SUCCEEDED, "the holder of the pool to end"
    )
    assert pool() == (1, 3)
    hand_over.start_orchestrating()
    hand_over.succeeds([*IN_POOL, "sum_up"])
    assert pool() == (0, 0)


def test_a_run_whose_step_runs_elsewhere_is_resumed_and_waits_for_it(hand_over):
    hand_over.launch("running_elsewhere")
    hand_over.wait_until(lambda: hand_over.said("STEP_START", "at_gate"), "the step to run")
    hand_over.hand_over()
    assert hand_over.state_of("at_gate") is State.RUNNING
    hand_over.succeeds(["before", "at_gate", "after"])
    assert hand_over.said("STEP_WORKER_STARTING", "at_gate") == 1


def test_a_run_whose_step_ended_while_nobody_orchestrated_is_resumed(hand_over):
    hand_over.launch("running_elsewhere")
    hand_over.wait_until(lambda: hand_over.said("STEP_START", "at_gate"), "the step to run")
    assert hand_over.site.fleet.stop_worker(hand_over.orchestrating) == 0
    hand_over.site.open_gate(hand_over.run_id)
    hand_over.wait_until(
        lambda: hand_over.state_of("at_gate") is State.SUCCEEDED, "the step to end"
    )
    assert hand_over.state_of("after") is None
    hand_over.start_orchestrating()
    hand_over.succeeds(["before", "at_gate", "after"])


def test_a_run_whose_steps_are_queued_is_resumed_and_queues_none_again(hand_over):
    hand_over.launch("queued_steps")
    names = [f"at_gate_{number}" for number in range(6)]
    hand_over.wait_until(
        lambda: (
            sum(hand_over.said("STEP_START", name) for name in names) == 3
            and sum(hand_over.state_of(name) is State.QUEUED for name in names) == 3
        ),
        "three steps to run and three to wait",
    )
    hand_over.hand_over()
    assert sum(hand_over.state_of(name) is State.QUEUED for name in names) == 3
    hand_over.succeeds(["before", *names, "sum_up"])
    assert all(hand_over.said("STEP_WORKER_STARTING", name) == 1 for name in names)


def test_a_run_is_resumed_twice_without_executing_anything_again(hand_over):
    hand_over.launch("running_elsewhere")
    hand_over.wait_until(lambda: hand_over.said("STEP_START", "at_gate"), "the step to run")
    for times in (1, 2):
        hand_over.hand_over()
        hand_over.wait_until(
            lambda: (
                sum("Resuming" in line for line in hand_over.site.fleet.said(hand_over.run_id))
                == times  # noqa: B023
            ),
            "one more orchestrator",
        )
    hand_over.succeeds(["before", "at_gate", "after"])
