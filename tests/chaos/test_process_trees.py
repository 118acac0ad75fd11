"""Nothing that a step has started outlives it, whoever of worker, fork server and child is killed."""

import signal
import sys
from pathlib import Path

import dagster as dg
import psutil
import pytest

from .conftest import Chaos
from .processes import alive, children_named, kill

STATUS = dg.DagsterRunStatus
CODE = Path(__file__).parent / "code" / "tree_jobs.py"
EVERYTHING = ("program", "own session", "worker process", "daemon", "left by a shell")
#: It takes milliseconds; on a busy machine, still less than the lease.
GONE_WITHIN_S = 10.0


@pytest.fixture
def trees(make_chaos):
    # A lease as a fleet has it: what is killed here must not wait for its end.
    with make_chaos(settings={"lease_s": 15, "renew_s": 3}, code=CODE) as chaos:
        yield chaos


def started(trees: Chaos) -> dict[str, int]:
    """The processes of a step that has started everything, by how they were started."""
    notes = [trees.wait_for_note(name) for name in EVERYTHING]
    return {note["name"]: note.get("of", note["pid"]) for note in notes}


def still_there(pids: dict[str, int]) -> list[str]:
    return [name for name, pid in pids.items() if alive(pid)]


def gone_soon(trees: Chaos, pids: dict[str, int]) -> None:
    """Well before the lease ends, which is when others would take it up."""
    trees.fleet.wait_for(
        lambda: not still_there(pids), "all of it to be gone",
        lambda: f"{still_there(pids)}\n{trees.explain()}", within_s=GONE_WITHIN_S,
    )  # fmt: skip


KILLED = {
    "worker": ("worker",),
    "fork server": ("server",),
    "child": ("child",),
    "worker and fork server": ("worker", "server"),
    "fork server and guardian": ("server", "guardian"),
    "worker and guardian": ("worker", "guardian"),
}


@pytest.mark.parametrize(
    ("job", "who"),
    [("programs", who) for who in KILLED]
    + [("programs_of_multiprocess", "worker"), ("programs_of_multiprocess", "fork server")],
)
def test_what_a_step_started_ends_with_whoever_is_killed(trees: Chaos, who, job):
    worker = trees.start_worker()
    trees.launch(job)
    pids = started(trees)
    pids["body"] = trees.wait_for_note("body")["pid"]
    (server,) = psutil.Process(worker.pid).children()
    (guardian,) = children_named(server, "guardian")
    child = next(p for p in server.children() if p.pid in above(pids["body"]))
    processes = {
        "worker": psutil.Process(worker.pid), "server": server, "guardian": guardian, "child": child,
    }  # fmt: skip
    kill(*(processes[name] for name in KILLED[who]))
    gone_soon(trees, {**pids, "guardian": guardian.pid if who == "worker" else child.pid})


def above(pid: int) -> set[int]:
    return {pid, *(each.pid for each in psutil.Process(pid).parents())}


def test_what_a_step_started_ends_with_the_step(trees: Chaos):
    worker = trees.start_worker()
    run_id = trees.launch("programs_and_end")
    pids = started(trees)
    assert len(still_there(pids)) == len(EVERYTHING)
    trees.open_gates("end")
    assert trees.fleet.wait_for_run(run_id).status is STATUS.SUCCESS
    # Its process may take its time to leave: it joins the process that it started.
    trees.fleet.wait_for(lambda: not still_there(pids), "all of it to be gone", trees.explain)
    assert trees.fleet.stop_worker(worker) == 0


def test_a_guardian_that_is_killed_is_replaced(trees: Chaos):
    worker = trees.start_worker()
    trees.launch("programs")
    pids = started(trees)
    (server,) = psutil.Process(worker.pid).children()
    (first,) = children_named(server, "guardian")
    first.kill()
    trees.fleet.wait_for(
        lambda: children_named(server, "guardian") not in ([], [first]), "another guardian",
        trees.explain,
    )  # fmt: skip
    assert len(still_there(pids)) == len(EVERYTHING)
    kill(psutil.Process(worker.pid), server)
    gone_soon(trees, pids)


def test_what_is_left_of_a_worker_killed_with_all_that_guards_it_is_ended_by_the_next(trees: Chaos):
    worker = trees.start_worker()
    trees.launch("programs")
    pids = started(trees)
    body = trees.wait_for_note("body")["pid"]
    (server,) = psutil.Process(worker.pid).children()
    (guardian,) = children_named(server, "guardian")
    assert len(still_there(pids)) == len(EVERYTHING)
    kill(psutil.Process(worker.pid), server, guardian)
    # Nobody is left: the body does nothing more, but what it started does, until a worker begins
    # on this host; one of another test may do so before ours.
    trees.fleet.wait_for(
        lambda: (
            not still_there({"body": body})
            or psutil.Process(body).status() == psutil.STATUS_STOPPED
        ),
        "the body to be stopped",
    )
    healthy = psutil.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    trees.start_worker()
    trees.fleet.wait_for(
        lambda: not still_there({**pids, "body": body}), "all of it to be gone", trees.explain
    )
    assert alive(healthy.pid)
    healthy.kill()
    healthy.wait()


def test_a_worker_killed_while_its_fork_server_is_frozen_leaves_nothing(trees: Chaos):
    worker = trees.start_worker()
    trees.launch("programs")
    pids = started(trees)
    (server,) = psutil.Process(worker.pid).children()
    server.suspend()
    worker.send_signal(signal.SIGKILL)
    gone_soon(trees, {**pids, "body": trees.wait_for_note("body")["pid"], "server": server.pid})
