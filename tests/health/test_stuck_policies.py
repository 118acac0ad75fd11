"""Each stuck-run case made for real, and each policy applied to a run of it: once, and with effect.

One situation serves all four policies: as many runs are stuck in it, and each gets its own.
"""

import dataclasses
import signal
from contextlib import contextmanager

import dagster as dg
import pytest

from dagster_taskiq_kit.dagster_health import run_health
from dagster_taskiq_kit.dagster_health.run_health import Cause, StuckRun, read_run_health
from dagster_taskiq_kit.dagster_health.run_verdict import judge_runs
from dagster_taskiq_kit.dagster_health.stuck_runs import StuckRunActions, StuckRunPolicy
from dagster_taskiq_kit.health.findings import Severity
from dagster_taskiq_kit.vocabulary.messages import step_task_id
from dagster_taskiq_kit.vocabulary.tags import STUCK_ACTION_TAG

from .conftest import Watching
from .test_stuck_runs import said, started

STATUS = dg.DagsterRunStatus
POLICIES = [policy.value for policy in StuckRunPolicy]
CONFIG = {"run_monitoring": {"enabled": False}, "run_retries": {"enabled": True}}


@contextmanager
def site_with_runs(make_watching, **worker):
    """A fleet whose worker executes (or does not take) one run for each policy."""
    with make_watching(config=CONFIG) as watching:
        process = watching.start_worker(slots=4, run_slots=4, **worker)
        yield watching, process, {policy: watching.launch("waiting") for policy in POLICIES}


def act_on(watching: Watching, runs: dict[str, str], cause: Cause, **looking) -> dict[str, str]:
    """Wait until all are stuck by this cause, apply each one's policy twice; returns the marks."""
    found: dict[str, StuckRun] = {}

    def all_stuck() -> bool:
        health = read_run_health(
            watching.instance, watching.fleet.broker, watching.fleet.snapshot(), **looking
        )
        found.update({each.run.run_id: each for each in health.stuck if each.cause is cause})
        return set(found) >= set(runs.values())

    watching.fleet.wait_for(all_stuck, f"all to be stuck: {cause}", lambda: str(found), 120)
    marks = {}
    for policy, run_id in runs.items():
        actions = StuckRunActions(watching.instance, watching.fleet.broker, StuckRunPolicy(policy))
        assert actions.act(found[run_id]) != ""
        assert actions.act(found[run_id]) == "", "an action is done once"
        assert said(watching, run_id, "This run is stuck: ") == 1
        mark = watching.instance.get_run_by_id(run_id).tags[STUCK_ACTION_TAG]
        assert mark.endswith(f":{run_id[:8]}")
        marks[policy] = mark.removesuffix(f":{run_id[:8]}")
    return marks


def status(watching: Watching, run_id: str) -> STATUS:
    return watching.instance.get_run_by_id(run_id).status


def is_begun_anew(watching: Watching, run_id: str) -> bool:
    run = watching.instance.get_run_by_id(run_id)
    return run.status is STATUS.FAILURE and run.tags["dagster/max_retries"] == "1"


def test_runs_in_a_queue_that_nobody_serves(make_watching):
    with site_with_runs(make_watching, queues=["elsewhere"]) as (watching, _, runs):
        marks = act_on(watching, runs, Cause.UNSERVED)
        assert marks == {
            "report": "report:unserved:0",
            "resume": "report:unserved:0",  # it waits already
            "cancel": "cancel:unserved:0",
            "re_execute": "re_execute:unserved:0",
        }
        assert status(watching, runs["report"]) is STATUS.STARTING
        assert status(watching, runs["resume"]) is STATUS.STARTING
        assert watching.fleet.wait_for_run(runs["cancel"]).status is STATUS.CANCELED
        assert is_begun_anew(watching, runs["re_execute"])
        watching.gate.touch()
        watching.start_worker()
        for policy in ("report", "resume"):
            assert watching.fleet.wait_for_run(runs[policy]).status is STATUS.SUCCESS
        assert said(watching, runs["re_execute"], "STEP_START") == 0


def test_runs_of_a_frozen_worker(make_watching):
    with site_with_runs(make_watching) as (watching, worker, runs):
        for run_id in runs.values():
            started(watching, run_id)
        worker.send_signal(signal.SIGSTOP)
        try:
            marks = act_on(watching, runs, Cause.SILENT_WORKER)
        finally:
            worker.send_signal(signal.SIGCONT)
        assert marks == {
            "report": "report:silent_worker:0",
            "resume": "report:silent_worker:0",  # whoever rescues it resumes it
            "cancel": "cancel:silent_worker:0",
            "re_execute": "re_execute:silent_worker:0",
        }
        assert watching.fleet.wait_for_run(runs["cancel"]).status is STATUS.CANCELED
        assert is_begun_anew(watching, runs["re_execute"])


def test_runs_that_are_being_cancelled_while_their_worker_is_dead(make_watching):
    with site_with_runs(make_watching) as (watching, worker, runs):
        for run_id in runs.values():
            started(watching, run_id)
        worker.kill()
        worker.wait(20)
        for run_id in runs.values():
            assert watching.instance.run_launcher.terminate(run_id)
        marks = act_on(watching, runs, Cause.CANCELING)
        assert marks == {
            policy: f"{'report' if policy == 'report' else 'cancel'}:canceling:0"
            for policy in POLICIES
        }
        assert status(watching, runs["report"]) is STATUS.CANCELING
        for policy in ("resume", "cancel", "re_execute"):
            assert status(watching, runs[policy]) is STATUS.CANCELED


def test_runs_whose_child_hangs(make_watching):
    with site_with_runs(make_watching) as (watching, _, runs):
        for run_id in runs.values():
            started(watching, run_id)
        marks = act_on(watching, runs, Cause.NO_PROGRESS, no_progress_s=2)
        assert marks == {
            "report": "report:no_progress:0",
            "resume": "report:no_progress:0",  # its orchestrator lives
            "cancel": "cancel:no_progress:0",
            "re_execute": "re_execute:no_progress:0",
        }
        assert watching.fleet.wait_for_run(runs["cancel"]).status is STATUS.CANCELED
        assert is_begun_anew(watching, runs["re_execute"])
        # What the failed run still executed is stopped.
        (queue,) = [q for q in watching.fleet.snapshot().queues if q.name == "default"]
        assert queue.running <= 8
        watching.fleet.wait_for(
            lambda: watching.fleet.snapshot().queue("default").running == 4,
            "two runs with a step each to be left",
        )
        watching.gate.touch()
        for policy in ("report", "resume"):
            assert watching.fleet.wait_for_run(runs[policy]).status is STATUS.SUCCESS


def test_runs_with_a_step_that_the_broker_forgot(make_watching, monkeypatch):
    monkeypatch.setattr(run_health, "_QUIET_S", 0.0)
    with site_with_runs(make_watching) as (watching, _, runs):
        broker = watching.fleet.broker
        for run_id in runs.values():
            started(watching, run_id)
            broker.client.srem(broker.keys.name("run", run_id), step_task_id(run_id, "waits", 1))
        marks = act_on(watching, runs, Cause.LOST_STEP)
        assert marks == {
            "report": "report:lost_step:0",
            "resume": "report:lost_step:0",  # its orchestrator lives
            "cancel": "cancel:lost_step:0",
            "re_execute": "re_execute:lost_step:0",
        }
        assert watching.fleet.wait_for_run(runs["cancel"]).status is STATUS.CANCELED
        assert is_begun_anew(watching, runs["re_execute"])
        watching.gate.touch()


def test_a_retry_of_a_stuck_run_is_acted_on_anew(make_watching):
    with make_watching(config=CONFIG) as watching:
        watching.start_worker(queues=["elsewhere"])
        first = watching.launch("waiting")
        (found,) = act_until_stuck(watching, first)
        actions = lambda: StuckRunActions(  # noqa: E731
            watching.instance, watching.fleet.broker, StuckRunPolicy.REPORT
        )
        assert actions().act(found) != ""
        # Dagster copies the tags of a run to the one that retries it.
        copied = watching.instance.get_run_by_id(first).tags[STUCK_ACTION_TAG]
        second = watching.launch("waiting")
        watching.instance.add_run_tags(second, {STUCK_ACTION_TAG: copied})
        runs = [run_health._Open(watching.instance.get_run_by_id(r), 0.0) for r in (first, second)]
        said_of = [run_health._was_said(each, Cause.UNSERVED, 0) for each in runs]
        assert said_of == [True, False]
        assert not run_health._was_said(runs[0], Cause.UNSERVED, 1), "a resume is another attempt"
        (found,) = act_until_stuck(watching, second)
        assert actions().act(found) != ""
        assert said(watching, second, "This run is stuck: ") == 1


def act_until_stuck(watching: Watching, run_id: str) -> list[StuckRun]:
    found: list[StuckRun] = []

    def stuck() -> bool:
        health = read_run_health(
            watching.instance, watching.fleet.broker, watching.fleet.snapshot()
        )
        found[:] = [each for each in health.stuck if each.run.run_id == run_id]
        return bool(found)

    watching.fleet.wait_for(stuck, f"{run_id} to be stuck")
    return found


def test_many_runs_in_dagsters_own_queue_hide_no_stuck_one(make_watching, monkeypatch):
    monkeypatch.setattr(run_health, "MOST_RUNS", 3)
    with make_watching(config=CONFIG) as watching:
        watching.start_worker(queues=["elsewhere"])
        for _ in range(5):
            dg.DagsterInstance.create_run_for_job(watching.instance, a_job)
        run_id = watching.launch("waiting")
        assert act_until_stuck(watching, run_id)
        for _ in range(3):
            watching.launch("waiting")
        health = read_run_health(
            watching.instance, watching.fleet.broker, watching.fleet.snapshot()
        )
        assert (health.looked_at, health.overlooked) == (3, 1)
        quiet = dataclasses.replace(health, stuck=[])
        assert judge_runs(quiet).severity is Severity.WARN
        assert "1 were not" in judge_runs(quiet).sentence


@dg.job
def a_job() -> None:
    """Nothing: it is never launched."""


@pytest.mark.parametrize("how", ["lost", "deleted"])
def test_runs_that_nobody_executes(make_watching, how):
    with site_with_runs(make_watching) as (watching, worker, runs):
        for run_id in runs.values():
            started(watching, run_id)
        worker.kill()
        worker.wait(20)
        client, keys = watching.fleet.broker.client, watching.fleet.broker.keys
        if how == "deleted":
            client.flushdb()
            client.set(keys.name("born"), 1)
        else:
            watching.start_worker(queues=["elsewhere"])  # it gives the dead one up
        marks = act_on(watching, runs, Cause.NO_PROCESS)
        assert marks == {policy: f"{policy}:no_process:0" for policy in POLICIES}
        assert status(watching, runs["report"]) is STATUS.STARTED
        assert watching.instance.count_resume_run_attempts(runs["resume"]) == 1
        assert watching.fleet.wait_for_run(runs["cancel"]).status is STATUS.CANCELED
        assert is_begun_anew(watching, runs["re_execute"])
        watching.gate.touch()
        watching.start_worker(slots=4, run_slots=4)
        resumed = watching.fleet.wait_for_run(runs["resume"], 90)
        assert said(watching, resumed.run_id, "Resuming on taskiq workers") == 1
