"""The only worker's own clock is an hour off: each decision of the reconciler is made all the same."""

import dagster as dg
import pytest

from .conftest import Chaos
from .moved_clock import MovedClock

STATUS = dg.DagsterRunStatus
HOUR_S = 3600


@pytest.mark.parametrize("off_s", [-HOUR_S, HOUR_S])
def test_a_worker_whose_clock_is_off_ends_what_is_over_and_begins_what_waits(
    chaos: Chaos, tmp_path, off_s
):
    instance, broker = chaos.fleet.instance, chaos.fleet.broker
    instance.event_log_storage.set_concurrency_slots("narrow", 1)
    slots = lambda: instance.event_log_storage.get_concurrency_info("narrow")  # noqa: E731
    # Two runs that the broker forgot before anybody took them, of which one is cancelled.
    starting, canceling = chaos.launch("one"), chaos.launch("one")
    broker.client.delete(*broker.client.scan_iter(f"{broker.keys.prefix}:*", count=10_000))
    instance.report_run_canceling(instance.get_run_by_id(canceling))
    chaos.open_gates("first")

    clock = MovedClock(tmp_path / "clock", off_s)
    chaos.start_worker(environment=clock.environment)
    over = chaos.launch("pooled")
    chaos.wait_for_bodies("in_pool")
    assert slots().active_slot_count == 1, chaos.explain()
    instance.report_run_canceled(instance.get_run_by_id(over), "Marked by hand.")
    chaos.fleet.wait_for(lambda: slots().active_slot_count == 0, "the free slot", chaos.explain)
    nothing_held = lambda: not any(w.held for w in chaos.fleet.snapshot().workers)  # noqa: E731
    chaos.fleet.wait_for(nothing_held, "its processes to leave", chaos.explain)
    assert not chaos.bodies("in_pool", "end")
    assert instance.get_run_by_id(over).status is STATUS.CANCELED, chaos.explain()
    assert chaos.fleet.wait_for_run(canceling).status is STATUS.CANCELED, chaos.explain()
    assert chaos.fleet.wait_for_run(starting).status is STATUS.SUCCESS, chaos.explain()
    # What people read of it is an age, by whichever clock is right.
    (worker,) = chaos.fleet.snapshot().workers
    assert worker.live
    assert 0 <= worker.silent_s < HOUR_S
    assert abs(worker.clock_skew_s - off_s) < 60
