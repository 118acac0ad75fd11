"""The broker freezes, or its wall clock is set: nobody healthy is given up, and who is dead is."""

import signal
import time
from collections.abc import Iterator

import dagster as dg
import pytest

from dagster_taskiq_kit.broker import leases
from dagster_taskiq_kit.host.boot_time import boot_time_s

from .conftest import SHORT, Chaos
from .moved_clock import BrokerWithClock
from .test_broker_faults import nothing_is_left

STATUS = dg.DagsterRunStatus
HOUR_S = 3600
RUNS = 4


@pytest.fixture
def broker(tmp_path) -> Iterator[BrokerWithClock]:
    made = BrokerWithClock(tmp_path / "own-broker")
    yield made
    made.stop()


@pytest.fixture
def chaos(make_chaos, broker):
    with make_chaos(url=broker.url) as made:
        yield made


def renewals(chaos: Chaos) -> dict[str, str]:
    return dict(chaos.fleet.broker.run(leases.leases()).renewals)


def wait_for_renewals(chaos: Chaos, count: int) -> None:
    """Wait until each worker has renewed so often."""
    for _ in range(count):
        before = renewals(chaos)
        assert before
        chaos.fleet.wait_for(
            lambda: all(renewals(chaos).get(w) != seen for w, seen in before.items()),  # noqa: B023
            "each worker to renew", chaos.explain,
        )  # fmt: skip


def freeze(broker: BrokerWithClock, chaos: Chaos, for_s: float) -> None:
    broker.signal(signal.SIGSTOP)
    until_s = boot_time_s() + for_s
    chaos.fleet.wait_for(lambda: boot_time_s() > until_s, "the freeze to last")
    broker.signal(signal.SIGCONT)


def ages_make_sense(chaos: Chaos) -> None:
    """What people read after a jump: nothing is negative, older than the test, or gone."""
    snapshot = chaos.fleet.snapshot()
    assert len(snapshot.live_workers) == 2, snapshot.workers
    for worker in snapshot.workers:
        assert 0 <= worker.silent_s <= SHORT["lease_s"]
        assert 0 <= worker.lease_left_s <= SHORT["lease_s"]


def test_a_frozen_broker_and_a_clock_that_jumps_fail_no_run_and_hide_no_dead_worker(
    chaos: Chaos, broker: BrokerWithClock
):
    chaos.start_worker(slots=RUNS, run_slots=RUNS)
    second = chaos.start_worker(slots=RUNS, run_slots=RUNS)
    runs = [chaos.launch("one") for _ in range(RUNS)]
    chaos.wait_for_bodies("first", RUNS)
    for _ in range(3):
        freeze(broker, chaos, SHORT["lease_s"] * 1.7)
        wait_for_renewals(chaos, 2)
    # A lease and more after each jump, for whoever would judge by it.
    for off_s in (60, -HOUR_S, -HOUR_S + 60):
        broker.jump_to(off_s)
        chaos.fleet.wait_for(
            lambda: abs(broker.ahead_s(time.time()) - off_s) < 5,  # noqa: B023
            "the clock to have jumped",
        )
        ages_make_sense(chaos)
        wait_for_renewals(chaos, 4)
    assert len(chaos.bodies("first")) == RUNS, chaos.explain()
    chaos.open_gates("first")
    for run_id in runs:
        assert chaos.fleet.wait_for_run(run_id).status is STATUS.SUCCESS, chaos.explain()
    assert len(chaos.bodies("first")) == len(chaos.bodies("first", "end")) == RUNS
    nothing_is_left(chaos)
    # And now back by an hour more, while one of them is dead.
    assert chaos.fleet.stop_worker(second) == 0
    worker = chaos.start_executing(queues=["slow"])
    run_id = chaos.launch("on_slow_only")
    chaos.wait_for_bodies("on_slow")
    chaos.kill(worker)
    broker.jump_to(-2 * HOUR_S)
    assert chaos.fleet.wait_for_run(run_id).status is STATUS.FAILURE, chaos.explain()
    (entry,) = chaos.fleet.instance.all_logs(run_id, of_type=dg.DagsterEventType.STEP_FAILURE)
    said = entry.dagster_event.step_failure_data.error.message
    assert "was lost on worker worker-3-" in said
