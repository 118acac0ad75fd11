"""Cancelling a run: it ends CANCELED whatever it is doing, and its processes are gone."""

import signal

import dagster as dg
import psutil

from .conftest import Chaos

STATUS = dg.DagsterRunStatus


def cancel(chaos: Chaos, run_id: str) -> None:
    assert chaos.fleet.instance.run_launcher.terminate(run_id)


def is_canceled(chaos: Chaos, run_id: str) -> bool:
    return chaos.fleet.wait_for_run(run_id).status is STATUS.CANCELED


def holds_nothing(chaos: Chaos) -> bool:
    snapshot = chaos.fleet.snapshot()
    busy = [q for q in snapshot.queues if q.backlog or q.claimed or q.running]
    return not busy and not any(worker.held for worker in snapshot.workers)


def test_a_queued_run_is_canceled_at_once_without_a_worker(chaos: Chaos):
    run_id = chaos.launch("one")
    cancel(chaos, run_id)
    assert chaos.fleet.instance.get_run_by_id(run_id).status is STATUS.CANCELED
    assert holds_nothing(chaos)
    assert not chaos.fleet.instance.run_launcher.terminate(run_id)


def test_a_step_that_ignores_sigterm_is_killed_after_the_grace(make_chaos):
    with make_chaos(settings={"cancel_grace_s": 1}) as chaos:
        chaos.start_worker()
        run_id = chaos.launch("job_ignores_sigterm")
        chaos.wait_for_bodies("ignores_sigterm")
        (body,) = chaos.bodies("ignores_sigterm")
        cancel(chaos, run_id)
        assert is_canceled(chaos, run_id)
        chaos.fleet.wait_for(lambda: not psutil.pid_exists(body.pid), "the step to be gone")
        chaos.fleet.wait_for(lambda: holds_nothing(chaos), "nothing to be held", chaos.explain)


def test_cancelling_during_resource_init_and_during_a_wait_for_a_pool(chaos: Chaos):
    chaos.fleet.instance.event_log_storage.set_concurrency_slots("narrow", 1)
    chaos.start_worker(slots=2, run_slots=3)
    initializing = chaos.launch("job_needs_resource")
    began = chaos.ledger_file.parent / "resource-began"
    chaos.fleet.wait_for(began.exists, "the resource to be made", chaos.explain)
    cancel(chaos, initializing)
    assert is_canceled(chaos, initializing)
    assert not chaos.bodies("needs_resource")

    holding = chaos.launch("pooled")
    chaos.wait_for_bodies("in_pool")
    waiting = chaos.launch("pooled")
    blocked = lambda: any("blocked by" in line for line in chaos.fleet.said(waiting))  # noqa: E731
    chaos.fleet.wait_for(blocked, "the second run to wait for the pool", chaos.explain)
    cancel(chaos, waiting)
    assert is_canceled(chaos, waiting)
    chaos.open_gates("in_pool")
    assert chaos.fleet.wait_for_run(holding).status is STATUS.SUCCESS
    assert len(chaos.bodies("in_pool")) == 1
    chaos.fleet.wait_for(lambda: holds_nothing(chaos), "nothing to be held", chaos.explain)


def test_a_run_whose_worker_is_dead_is_canceled_and_never_resumed(chaos: Chaos):
    worker = chaos.start_worker()
    run_id = chaos.launch("one")
    chaos.wait_for_bodies("first")
    chaos.kill(worker)
    cancel(chaos, run_id)
    assert chaos.fleet.instance.get_run_by_id(run_id).status is STATUS.CANCELING
    assert chaos.monitor() == []
    chaos.start_worker()
    assert is_canceled(chaos, run_id)
    assert len(chaos.bodies("first")) == 1
    chaos.fleet.wait_for(lambda: holds_nothing(chaos), "nothing to be held", chaos.explain)


def test_a_run_that_hears_of_its_cancelled_step_before_its_signal_is_canceled(chaos: Chaos):
    worker = chaos.start_orchestrating()
    run_id = chaos.launch("one")
    queued = lambda: any("Queued step" in line for line in chaos.fleet.said(run_id))  # noqa: E731
    chaos.fleet.wait_for(queued, "the step to be queued", chaos.explain)
    worker.send_signal(signal.SIGSTOP)  # the order to stop waits in its orders
    try:
        cancel(chaos, run_id)
        assert is_canceled(chaos, run_id)
    finally:
        worker.send_signal(signal.SIGCONT)
    assert not any("STEP_FAILURE" in line for line in chaos.fleet.said(run_id))


def test_cancelling_during_a_hand_over_wins(chaos: Chaos):
    orchestrating = chaos.start_orchestrating()
    chaos.start_executing()
    run_id = chaos.launch("chain")
    chaos.wait_for_bodies("first")
    assert chaos.fleet.stop_worker(orchestrating) == 0
    cancel(chaos, run_id)
    assert is_canceled(chaos, run_id)
    chaos.fleet.wait_for(lambda: holds_nothing(chaos), "nothing to be held", chaos.explain)
    assert not chaos.bodies("second")


def test_terminate_needs_no_answer_of_a_frozen_worker(chaos: Chaos):
    worker = chaos.start_worker()
    run_id = chaos.launch("one")
    chaos.wait_for_bodies("first")
    worker.send_signal(signal.SIGSTOP)
    cancel(chaos, run_id)
    worker.send_signal(signal.SIGCONT)
    assert is_canceled(chaos, run_id)
