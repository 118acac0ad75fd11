"""Between its claim and its end a delivery is held, named, cancellable and drained."""

import signal
from pathlib import Path

import dagster as dg
import psutil
import pytest

from .conftest import Chaos

STATUS = dg.DagsterRunStatus
CODE = Path(__file__).parent / "code" / "tree_jobs.py"
#: Three leases: renewals pass while the fork server imports the code again.
IMPORT_S = "9"


@pytest.fixture
def slow(make_chaos):
    with make_chaos(code=CODE) as chaos:
        yield chaos


def start_without_fork_server(slow: Chaos):
    """Return a worker that executes steps, whose fork server is importing its code again."""
    slow.start_orchestrating()
    worker = slow.start_executing(environment={"IMPORT_S": IMPORT_S})
    run_id = slow.launch("held")
    slow.wait_for_note("body")
    (server,) = psutil.Process(worker.pid).children()
    return worker, server, run_id


def claim_while_it_is_away(slow: Chaos, server: psutil.Process) -> str:
    """Freeze a fork server, let its worker claim a step for it, and kill it."""
    server.suspend()
    before = claims(slow)
    run_id = slow.launch("held")
    slow.fleet.wait_for(lambda: claims(slow) > before, "the claim", slow.explain)
    server.kill()
    return run_id


def claims(slow: Chaos) -> int:
    key = slow.fleet.broker.keys.name("counters")
    return int(slow.fleet.broker.client.hget(key, "claimed|default|step") or 0)


def test_a_step_that_waits_for_its_fork_server_runs_once(slow: Chaos):
    worker, server, first = start_without_fork_server(slow)
    second = claim_while_it_is_away(slow, server)
    assert slow.fleet.wait_for_run(first).status is STATUS.FAILURE  # it was at work
    slow.wait_for_note("body", 2)
    slow.open_gates("slow")
    assert slow.fleet.wait_for_run(second).status is STATUS.SUCCESS
    assert [note["attempt"] for note in slow.noted("body")] == [1, 1]
    assert claims(slow) == 3  # it was given back once, when the fork server that had it died
    assert slow.fleet.stop_worker(worker) == 0


def test_a_step_that_waits_for_its_fork_server_is_cancelled_and_never_begins(slow: Chaos):
    worker, server, _ = start_without_fork_server(slow)
    second = claim_while_it_is_away(slow, server)
    assert slow.fleet.instance.run_launcher.terminate(second)
    assert slow.fleet.wait_for_run(second).status is STATUS.CANCELED
    snapshot = slow.fleet.snapshot
    slow.fleet.wait_for(lambda: not any(w.held for w in snapshot().workers), "nothing to be held")
    third = slow.launch("held")  # its body begins when the code is there again
    slow.open_gates("slow")
    assert slow.fleet.wait_for_run(third).status is STATUS.SUCCESS
    assert len(slow.noted("body")) == 2
    assert slow.fleet.stop_worker(worker) == 0


def test_a_step_that_waits_for_its_fork_server_is_given_back_by_a_drain(slow: Chaos):
    worker, server, _ = start_without_fork_server(slow)
    second = claim_while_it_is_away(slow, server)
    other = slow.start_executing()
    worker.send_signal(signal.SIGTERM)
    slow.open_gates("slow")
    assert slow.fleet.wait_for_run(second).status is STATUS.SUCCESS
    assert worker.wait(60) == 0
    assert slow.fleet.stop_worker(other) == 0
