"""A worker that is frozen or cut off is stopped before its work begins elsewhere."""

import signal
from collections.abc import Sequence

import dagster as dg
import psutil
import pytest

from .conftest import Chaos
from .processes import alive
from .proxy import Proxy

STATUS = dg.DagsterRunStatus


def gone(pid: int) -> bool:
    return not alive(pid)


def one_outcome(chaos: Chaos, run_id: str, step: str) -> None:
    """The second attempt's body ended the run, and no two bodies were at work at once."""
    assert chaos.fleet.wait_for_run(run_id).status is STATUS.SUCCESS
    assert [entry.attempt for entry in chaos.bodies(step)] == [1, 2]
    assert [entry.attempt for entry in chaos.bodies(step, "end")] == [2]
    events = chaos.fleet.instance.all_logs(run_id, of_type=dg.DagsterEventType.STEP_SUCCESS)
    assert len(events) == 1


def send_all(processes: Sequence[psutil.Process], number: int) -> None:
    for process in processes:
        process.send_signal(number)


def test_the_children_of_a_frozen_worker_are_killed_by_their_fork_server(chaos: Chaos):
    chaos.start_orchestrating()
    frozen = chaos.start_executing()
    run_id = chaos.launch("retried")
    chaos.wait_for_bodies("patient")
    (body,) = chaos.bodies("patient")
    frozen.send_signal(signal.SIGSTOP)
    chaos.fleet.wait_for(lambda: gone(body.pid), "the child to be killed", chaos.explain)
    chaos.start_executing()
    chaos.wait_for_bodies("patient", 2)
    frozen.send_signal(signal.SIGCONT)
    chaos.open_gates("patient")
    one_outcome(chaos, run_id, "patient")
    assert chaos.fleet.stop_worker(frozen) == 0


def test_a_whole_frozen_machine_is_ignored_after_its_thaw(chaos: Chaos):
    chaos.start_orchestrating()
    frozen = chaos.start_executing()
    run_id = chaos.launch("retried")
    chaos.wait_for_bodies("patient")
    (body,) = chaos.bodies("patient")
    machine = [psutil.Process(frozen.pid), *psutil.Process(frozen.pid).children(recursive=True)]
    send_all(machine, signal.SIGSTOP)
    chaos.start_executing()
    chaos.wait_for_bodies("patient", 2)
    second = chaos.bodies("patient")[-1]
    assert psutil.pid_exists(body.pid)
    send_all(list(reversed(machine)), signal.SIGCONT)
    chaos.fleet.wait_for(lambda: gone(body.pid), "the thawed child to be killed", chaos.explain)
    assert not gone(second.pid)
    chaos.open_gates("patient")
    one_outcome(chaos, run_id, "patient")


def test_what_a_thawed_child_still_wrote_is_ignored_with_a_note(make_chaos):
    """The gate opens while everything is frozen: the old body ends in the moment of its thaw.

    On SQLite, where a child stores its events itself.
    """
    with make_chaos(storage="sqlite") as chaos:
        thaw_a_child_that_has_lost_its_step(chaos)


def thaw_a_child_that_has_lost_its_step(chaos: Chaos):
    chaos.start_orchestrating()
    frozen = chaos.start_executing()
    run_id = chaos.launch("retried")
    chaos.wait_for_bodies("patient")
    (body,) = chaos.bodies("patient")
    machine = psutil.Process(frozen.pid).children(recursive=True)
    above = [psutil.Process(frozen.pid), *(p for p in machine if p.pid != body.pid)]
    send_all([*above, psutil.Process(body.pid)], signal.SIGSTOP)
    chaos.start_executing(environment={"GATES": "second-machine"})
    chaos.wait_for_bodies("patient", 2)
    chaos.open_gates("patient")
    psutil.Process(body.pid).send_signal(signal.SIGCONT)
    said = "that attempt was closed before"
    chaos.fleet.wait_for(
        lambda: any(said in line for line in chaos.fleet.said(run_id)), "the note", chaos.explain
    )
    send_all(above, signal.SIGCONT)
    chaos.open_gates("second-machine-patient")
    assert chaos.fleet.wait_for_run(run_id).status is STATUS.SUCCESS
    assert [entry.attempt for entry in chaos.bodies("patient", "end")] == [1, 2]


@pytest.fixture
def proxy(broker_url):
    made = Proxy.to(broker_url)
    yield made
    made.close()


@pytest.mark.parametrize("how", ["cut", "stall"])
def test_a_worker_cut_off_from_the_broker_is_stopped_by_the_database(
    chaos: Chaos, proxy: Proxy, broker_url, how
):
    chaos.start_orchestrating()
    alone = chaos.start_executing(environment={"DAGSTER_TASKIQ_URL": proxy.url(broker_url)})
    run_id = chaos.launch("retried")
    chaos.wait_for_bodies("patient")
    (body,) = chaos.bodies("patient")
    getattr(proxy, how)()
    chaos.start_executing()
    chaos.wait_for_bodies("patient", 2)
    assert gone(body.pid)
    assert not chaos.overlaps("patient")
    proxy.mend()
    chaos.open_gates("patient")
    one_outcome(chaos, run_id, "patient")
    assert chaos.fleet.stop_worker(alone) == 0


def test_a_worker_cut_off_from_broker_and_database_is_stopped_at_the_end_of_its_lease(
    make_chaos, proxy: Proxy, broker_url, tmp_path
):
    with make_chaos(storage="postgres") as chaos:
        database = Proxy.to(chaos.database_url())
        own_home = chaos.home_through(tmp_path / "own_home", database)
        chaos.start_orchestrating()
        chaos.start_executing(
            environment={
                "DAGSTER_TASKIQ_URL": proxy.url(broker_url),
                "DAGSTER_HOME": str(own_home),
            }
        )
        run_id = chaos.launch("retried")
        chaos.wait_for_bodies("patient")
        (body,) = chaos.bodies("patient")
        proxy.cut()
        database.cut()
        chaos.start_executing()
        chaos.wait_for_bodies("patient", 2)
        assert gone(body.pid)
        assert not chaos.overlaps("patient")
        chaos.open_gates("patient")
        one_outcome(chaos, run_id, "patient")
        database.close()


def test_a_short_cut_kills_no_healthy_work(chaos: Chaos, proxy: Proxy, broker_url):
    chaos.start_orchestrating()
    chaos.start_executing(environment={"DAGSTER_TASKIQ_URL": proxy.url(broker_url)})
    run_id = chaos.launch("one")
    chaos.wait_for_bodies("first")
    for _ in range(3):
        proxy.reset()
        beat = renewals(chaos)
        chaos.fleet.wait_for(lambda: renewals(chaos) != beat, "a renewal", chaos.explain)  # noqa: B023
    chaos.open_gates("first")
    assert chaos.fleet.wait_for_run(run_id).status is STATUS.SUCCESS
    assert len(chaos.bodies("first")) == 1


def renewals(chaos: Chaos) -> bytes:
    """The last renewal of the worker that executes."""
    (worker,) = [w for w in chaos.fleet.snapshot().workers if w.card.slots]
    key = chaos.fleet.broker.keys.name("worker", worker.card.worker_id)
    return chaos.fleet.broker.client.hget(key, "renewed_at")


def test_a_fork_server_that_hangs_is_killed_with_its_children_and_replaced(chaos: Chaos):
    chaos.start_orchestrating()
    worker = chaos.start_executing()
    run_id = chaos.launch("retried")
    chaos.wait_for_bodies("patient")
    (body,) = chaos.bodies("patient")
    (hung,) = psutil.Process(worker.pid).children()
    hung.suspend()
    chaos.fleet.wait_for(lambda: gone(hung.pid), "it to be killed", chaos.explain)
    chaos.fleet.wait_for(lambda: gone(body.pid), "its child to be killed", chaos.explain)
    chaos.wait_for_bodies("patient", 2)
    retried = dg.DagsterEventType.STEP_UP_FOR_RETRY
    (entry,) = chaos.fleet.instance.all_logs(run_id, of_type=retried)
    said = entry.dagster_event.step_retry_data.error.message
    assert "the fork server died or did not answer" in said
    assert "lease" not in said
    chaos.open_gates("patient")
    one_outcome(chaos, run_id, "patient")
    assert chaos.fleet.stop_worker(worker) == 0
