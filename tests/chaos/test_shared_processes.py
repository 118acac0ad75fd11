"""Steps of a run that share processes, as it asked for: each has its own events, limits and end."""

import os
import signal
from collections import Counter
from pathlib import Path

import dagster as dg
import pytest

from .conftest import Chaos
from .processes import alive

CODE = Path(__file__).parent / "code" / "sharing_jobs.py"
STATUS = dg.DagsterRunStatus
LINKS = ["starts", *(f"link_{number}" for number in range(5))]


@pytest.fixture(params=["postgres", "sqlite"])
def chaos(request, make_chaos):
    """With events that the worker stores, and with events that the child stores."""
    with make_chaos(code=CODE, storage=request.param) as made:
        made.start_orchestrating()
        yield made


@pytest.fixture
def relayed(make_chaos):
    with make_chaos(code=CODE) as made:
        made.start_orchestrating()
        yield made


def pids(chaos: Chaos, *steps: str) -> list[int]:
    """The process that executed each step last."""
    return [chaos.bodies(step)[-1].pid for step in steps]


def events(chaos: Chaos, run_id: str, step: str) -> list[str]:
    found = []
    for entry in chaos.fleet.instance.all_logs(run_id):
        event = entry.dagster_event
        if (entry.step_key or (event and event.step_key)) == step:
            found.append(
                event.event_type_value if event else entry.user_message.replace(run_id, "")
            )
    return found


def succeed(chaos: Chaos, run_id: str) -> None:
    assert chaos.fleet.wait_for_run(run_id).status is STATUS.SUCCESS, chaos.explain()


def test_steps_of_a_run_that_share_a_process_say_what_they_say_in_one_of_their_own(chaos: Chaos):
    chaos.start_executing(slots=1)
    run_id = chaos.launch("shared_chain")
    succeed(chaos, run_id)
    assert len(set(pids(chaos, *LINKS))) == 1
    alone = chaos.launch("own_chain")
    succeed(chaos, alone)
    assert len(set(pids(chaos, *LINKS))) == len(LINKS)
    for step in LINKS:
        assert events(chaos, run_id, step) == events(chaos, alone, step)
    printed = [path.read_text() for path in (chaos.fleet.home / "storage" / run_id).rglob("*.out")]
    assert Counter(text.count("print of") for text in printed if text) == {1: 5}


def test_a_process_executes_no_more_steps_than_the_limit(relayed: Chaos):
    relayed.start_executing(slots=1)
    succeed(relayed, relayed.launch("chain_by_two"))
    executed = Counter(pids(relayed, *LINKS))
    assert set(executed.values()) == {2}, executed


def test_two_runs_share_no_process_and_each_that_rests_leaves(chaos: Chaos):
    chaos.start_executing(slots=1)
    runs = [chaos.launch("shared_chain") for _ in range(2)]
    for run_id in runs:
        succeed(chaos, run_id)
    of_each = [{entry.pid for entry in chaos.ledger() if entry.run == run_id} for run_id in runs]
    assert not of_each[0] & of_each[1]
    chaos.fleet.wait_for(
        lambda: not any(alive(pid) for pid in of_each[0] | of_each[1]), "all that rest to leave"
    )


def test_what_ends_one_step_ends_no_other_in_its_process(chaos: Chaos):
    """A crash, a time limit, a failure, a retry: each is of the step that had it."""
    worker = chaos.start_executing(slots=1)
    run_id = chaos.launch("one_of_each")
    assert chaos.fleet.wait_for_run(run_id).status is STATUS.FAILURE, chaos.explain()
    stats = chaos.fleet.instance.get_run_step_stats(run_id)
    ended = {each.step_key: (each.status.value, each.attempts) for each in stats}
    assert ended == {
        "starts": ("SUCCESS", 1), "crashes": ("FAILURE", 1), "is_slow": ("FAILURE", 1),
        "fails_once": ("SUCCESS", 2), "raises": ("FAILURE", 1), "link": ("SUCCESS", 1),
    }, chaos.explain()  # fmt: skip
    assert worker.poll() is None
    assert len(chaos.bodies("link")) == 1


def test_a_cancelled_step_ends_and_its_process_with_it(chaos: Chaos):
    chaos.start_executing(slots=1)
    run_id = chaos.launch("waiting_chain")
    chaos.wait_for_bodies("waits")
    (pid,) = pids(chaos, "waits")
    assert [pid] == pids(chaos, "starts")
    assert chaos.fleet.instance.run_launcher.terminate(run_id)
    assert chaos.fleet.wait_for_run(run_id).status is STATUS.CANCELED, chaos.explain()
    assert not chaos.bodies("link")
    chaos.fleet.wait_for(lambda: not alive(pid), "its process to end")
    succeed(chaos, chaos.launch("shared_chain"))


def test_a_slot_is_given_back_between_steps_to_what_is_more_urgent(relayed: Chaos):
    relayed.start_executing(slots=1)
    run_id = relayed.launch("shared_fan")
    relayed.fleet.wait_for(
        lambda: any(entry.step.startswith("each") for entry in relayed.ledger()), "the first of ten"
    )
    urgent = relayed.launch("urgent_job")
    queued = dg.DagsterEventType.STEP_WORKER_STARTING
    relayed.fleet.wait_for(
        lambda: relayed.fleet.instance.all_logs(urgent, of_type=queued), "the urgent one to wait"
    )
    before = len(relayed.ledger())
    relayed.open_gates("first_of_ten")
    succeed(relayed, run_id)
    succeed(relayed, urgent)
    steps = [entry.step for entry in relayed.ledger() if entry.what == "start"]
    assert steps.index("urgent") <= before + 1, relayed.ledger()


def test_an_op_may_share_its_process_where_its_job_does_not(relayed: Chaos):
    relayed.start_executing(slots=1)
    succeed(relayed, relayed.launch("by_op"))
    starts, first, second, link = pids(relayed, "starts", "tagged_0", "tagged_1", "link")
    assert first == second
    assert len({starts, first, link}) == 3


def test_a_process_that_is_killed_while_it_rests_costs_nothing(chaos: Chaos):
    chaos.start_executing(slots=1)
    chaos.start_worker("-q", "slow", run_slots=0, slots=1)
    run_id = chaos.launch("over_another_queue")
    chaos.wait_for_bodies("on_slow")
    (pid,) = pids(chaos, "starts")
    os.kill(pid, signal.SIGKILL)
    chaos.open_gates("on_slow")
    succeed(chaos, run_id)
    assert pids(chaos, "link") != [pid]


def test_a_process_that_rests_runs_its_exit_handlers_when_its_worker_ends(relayed: Chaos):
    worker = relayed.start_executing(slots=1)
    run_id = relayed.launch("with_exit_handler")
    succeed(relayed, run_id)
    (pid,) = pids(relayed, "registers")
    assert relayed.fleet.stop_worker(worker) == 0
    assert not alive(pid)
    assert (relayed.ledger_file.parent / "at_exit").read_text() == run_id


def test_a_worker_that_is_killed_leaves_no_process_that_rests(chaos: Chaos):
    worker = chaos.start_executing(slots=1)
    chaos.start_worker("-q", "slow", run_slots=0, slots=1)
    run_id = chaos.launch("over_another_queue")
    chaos.wait_for_bodies("on_slow")
    (pid,) = pids(chaos, "starts")
    chaos.kill(worker)
    chaos.fleet.wait_for(lambda: not alive(pid), "its process to end")
    chaos.open_gates("on_slow")
    chaos.start_executing(slots=1)
    succeed(chaos, run_id)


def test_another_value_of_the_tag_fails_the_run_with_a_sentence(relayed: Chaos):
    run_id = relayed.launch("tagged_badly")
    assert relayed.fleet.wait_for_run(run_id).status is STATUS.FAILURE
    failed = dg.DagsterEventType.RUN_FAILURE
    (entry,) = relayed.fleet.instance.all_logs(run_id, of_type=failed)
    said = entry.dagster_event.job_failure_data.error.to_string()
    assert "'dagster-taskiq/isolation' of the run is 'none'" in said, said
