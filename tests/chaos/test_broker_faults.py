"""The broker dies, forgets, fills up or refuses: nothing is lost, nothing runs twice, no run fails."""

import signal

import dagster as dg
import psutil
import pytest
import redis

from .conftest import Chaos
from .own_broker import OwnBroker

STATUS = dg.DagsterRunStatus


@pytest.fixture
def chaos(make_chaos, broker):
    with make_chaos(url=broker.url) as made:
        yield made


def once(chaos: Chaos, *steps: str) -> None:
    for step in steps:
        assert len(chaos.bodies(step)) == len(chaos.bodies(step, "end")) == 1, chaos.explain()


def nothing_is_left(chaos: Chaos) -> None:
    """Every message ended, in the records and in every index of them."""
    keys = chaos.fleet.broker.keys

    def clean() -> bool:
        snapshot = chaos.fleet.snapshot()
        held = [each.task_id for worker in snapshot.workers for each in worker.held]
        busy = [q for q in snapshot.queues if q.backlog or q.claimed or q.running]
        return not (held or busy or chaos.fleet.broker.client.scard(keys.name("open_runs")))

    chaos.fleet.wait_for(clean, "nothing to be left", lambda: str(chaos.fleet.snapshot()))


def waits_in(chaos: Chaos, queue: str) -> bool:
    return any(q.name == queue and q.backlog for q in chaos.fleet.snapshot().queues)


def is_claimed(chaos: Chaos) -> bool:
    return any(q.claimed for q in chaos.fleet.snapshot().queues)


def test_a_broker_killed_under_load_loses_and_doubles_nothing(chaos: Chaos, broker: OwnBroker):
    chaos.start_worker(slots=4)
    chaos.start_worker(slots=4)
    run_id = chaos.launch("wide")
    chaos.fleet.wait_for(lambda: len(bodies_of_wide(chaos)) >= 8, "8 at work", chaos.explain)
    for _ in range(2):
        broker.kill()
        broker.start()
        chaos.fleet.wait_for(lambda: answers(chaos), "the broker to be back")
    chaos.open_gates("wide")
    assert chaos.fleet.wait_for_run(run_id, 120).status is STATUS.SUCCESS
    assert len(bodies_of_wide(chaos)) == 200
    assert len({entry.step for entry in bodies_of_wide(chaos)}) == 200
    nothing_is_left(chaos)


def bodies_of_wide(chaos: Chaos):
    return [e for e in chaos.ledger() if e.step.startswith("each_of_many[") and e.what == "start"]


def is_loading(broker: OwnBroker) -> bool:
    try:
        broker.client.get("x")
    except redis.exceptions.BusyLoadingError:
        return True
    except redis.RedisError:
        pass
    return False


def answers(chaos: Chaos) -> bool:
    try:
        return bool(chaos.fleet.broker.client.ping())
    except redis.RedisError:
        return False


def test_an_outage_of_three_leases_kills_no_healthy_work_and_fails_no_run(
    chaos: Chaos, broker: OwnBroker
):
    chaos.start_orchestrating()
    chaos.start_executing()
    run_id = chaos.launch("chain")
    chaos.wait_for_bodies("first")
    broker.kill()
    said = lambda: sum("Waiting for it" in line for line in chaos.fleet.said(run_id))  # noqa: E731
    chaos.fleet.wait_for(lambda: said() == 1, "the note of the outage", chaos.explain)
    late = chaos.launch("one")
    assert any("is queued by a worker when" in line for line in chaos.fleet.said(late))
    chaos.open_gates("first", "second")
    chaos.wait_for_bodies("first", what="end")
    broker.start()
    assert chaos.fleet.wait_for_run(run_id).status is STATUS.SUCCESS
    once(chaos, "second")
    assert chaos.fleet.wait_for_run(late, 90).status is STATUS.SUCCESS
    nothing_is_left(chaos)


@pytest.mark.parametrize("fault", ["readonly", "full", "loading"])
def test_a_broker_that_cannot_take_writes_for_a_while_fails_no_run(
    chaos: Chaos, broker: OwnBroker, fault
):
    chaos.start_orchestrating()
    chaos.start_executing()
    run_id = chaos.launch("chain")
    chaos.wait_for_bodies("first")
    if fault == "readonly":
        broker.client.replicaof("127.0.0.1", 1)
    elif fault == "full":
        broker.client.config_set("maxmemory", 1)
    else:
        ballast = broker.client.pipeline(transaction=False)
        for number in range(10_000):
            ballast.set(f"ballast-{number}", number)
        ballast.execute()
        broker.kill()
        broker.start_loading_slowly()
        chaos.fleet.wait_for(lambda: is_loading(broker), "the server to say that it loads")
    chaos.open_gates("first", "second")
    chaos.wait_for_bodies("first", what="end")
    # Many servers answer nothing at all while they load; others say -LOADING.
    sentence = {"readonly": "cannot take writes", "full": "memory is full", "loading": "no answer"}
    chaos.fleet.wait_for(
        lambda: sentence[fault] in chaos.worker_said(1), "the worker to notice", chaos.explain
    )
    if fault == "readonly":
        broker.client.replicaof("NO", "ONE")
    elif fault == "full":
        broker.client.config_set("maxmemory", 0)
    else:
        broker.client.config_set("key-load-delay", 0)
    assert chaos.fleet.wait_for_run(run_id, 90).status is STATUS.SUCCESS, chaos.explain()
    once(chaos, "first", "second")
    nothing_is_left(chaos)


def test_a_broker_that_forgot_everything_is_told_again(chaos: Chaos, broker: OwnBroker):
    chaos.start_orchestrating()
    chaos.start_executing(slots=1)
    running, waiting = chaos.launch("chain"), chaos.launch("other_chain")
    chaos.fleet.wait_for(lambda: len(chaos.ledger()) == 1 and waits_in(chaos, "default"), "both")
    broker.client.flushall()
    chaos.open_gates("first", "second", "third")
    for run_id in (running, waiting):
        assert chaos.fleet.wait_for_run(run_id, 90).status is STATUS.SUCCESS
    once(chaos, "third")
    assert len({(e.run, e.step) for e in chaos.ledger()}) * 2 == len(chaos.ledger())
    nothing_is_left(chaos)


def test_a_forgotten_submission_of_a_run_is_made_again(chaos: Chaos, broker: OwnBroker):
    size = broker.size()
    run_id = chaos.launch("one")
    broker.forget_since(size)
    chaos.open_gates("first")
    chaos.start_worker()
    assert chaos.fleet.wait_for_run(run_id, 90).status is STATUS.SUCCESS
    once(chaos, "first")
    nothing_is_left(chaos)


def test_a_forgotten_submission_of_a_step_is_made_again(chaos: Chaos, broker: OwnBroker):
    chaos.start_worker()
    run_id = chaos.launch("two_queues")
    chaos.wait_for_bodies("first")
    size = broker.size()
    chaos.open_gates("first", "on_slow")
    chaos.fleet.wait_for(lambda: waits_in(chaos, "slow"), "the second step to wait", chaos.explain)
    broker.forget_since(size)
    chaos.start_executing(queues=["slow"])
    assert chaos.fleet.wait_for_run(run_id, 90).status is STATUS.SUCCESS
    once(chaos, "first", "on_slow")
    nothing_is_left(chaos)


@pytest.fixture
def frozen_claim(chaos: Chaos, broker: OwnBroker):
    """A step that is queued, then claimed, and cannot begin; yields run, sizes before and after."""
    chaos.start_orchestrating()
    worker = chaos.start_executing(queues=["slow"])
    (fork_server,) = psutil.Process(worker.pid).children()
    worker.send_signal(signal.SIGSTOP)
    run_id = chaos.launch("on_slow_only")
    chaos.fleet.wait_for(lambda: waits_in(chaos, "slow"), "the step to wait", chaos.explain)
    queued = broker.size()
    fork_server.suspend()
    worker.send_signal(signal.SIGCONT)
    chaos.fleet.wait_for(lambda: is_claimed(chaos), "the claim", chaos.explain)
    return run_id, fork_server, queued, broker.size()


def test_a_forgotten_claim_ends_once(chaos: Chaos, broker: OwnBroker, frozen_claim):
    run_id, fork_server, queued, _ = frozen_claim
    broker.forget_since(queued)
    fork_server.resume()
    chaos.open_gates("on_slow")
    assert chaos.fleet.wait_for_run(run_id).status is STATUS.SUCCESS
    once(chaos, "on_slow")
    nothing_is_left(chaos)


def test_a_forgotten_start_ends_once(chaos: Chaos, broker: OwnBroker, frozen_claim):
    run_id, fork_server, _, claimed = frozen_claim
    fork_server.resume()
    chaos.wait_for_bodies("on_slow")
    broker.forget_since(claimed)
    nothing_is_claimed = lambda: not is_claimed(chaos)  # noqa: E731
    chaos.fleet.wait_for(nothing_is_claimed, "the start to be stated again", chaos.explain)
    chaos.open_gates("on_slow")
    assert chaos.fleet.wait_for_run(run_id).status is STATUS.SUCCESS
    once(chaos, "on_slow")
    nothing_is_left(chaos)


def test_a_forgotten_claim_and_start_end_once(chaos: Chaos, broker: OwnBroker, frozen_claim):
    run_id, fork_server, queued, _ = frozen_claim
    fork_server.resume()
    chaos.wait_for_bodies("on_slow")
    broker.forget_since(queued)
    chaos.fleet.wait_for(
        lambda: any(q.running for q in chaos.fleet.snapshot().queues if q.name == "slow"),
        "the start to be stated again", chaos.explain,
    )  # fmt: skip
    chaos.open_gates("on_slow")
    assert chaos.fleet.wait_for_run(run_id).status is STATUS.SUCCESS
    once(chaos, "on_slow")
    nothing_is_left(chaos)


def test_a_forgotten_finish_ends_once(chaos: Chaos, broker: OwnBroker):
    chaos.start_worker()
    run_id = chaos.launch("one")
    chaos.wait_for_bodies("first")
    size = broker.size()
    chaos.open_gates("first")
    assert chaos.fleet.wait_for_run(run_id).status is STATUS.SUCCESS
    broker.forget_since(size)
    nothing_is_left(chaos)
    assert chaos.fleet.instance.get_run_by_id(run_id).status is STATUS.SUCCESS
    once(chaos, "first")
