"""Five hundred runs, queued and beginning and at work, cancelled in a loop."""

import dagster as dg
import pytest

from .conftest import Chaos
from .test_cancel import cancel, holds_nothing

STATUS = dg.DagsterRunStatus


# Dagster writes eight events a run, and three other tests share the machine.
@pytest.mark.timeout(900)
def test_five_hundred_runs_cancelled_in_a_loop_all_end_canceled(make_chaos):
    with make_chaos(storage="postgres") as chaos:
        chaos.start_worker(slots=2, run_slots=2)
        runs = [chaos.launch("one") for _ in range(500)]
        chaos.wait_for_bodies("first", 2)
        for run_id in runs:
            cancel(chaos, run_id)
        chaos.fleet.wait_for(lambda: all_over(chaos, runs), "all runs to end", chaos.explain)
        for run_id in runs:
            run = chaos.fleet.instance.get_run_by_id(run_id)
            assert run.status is STATUS.CANCELED, "\n".join(chaos.fleet.said(run_id))
        chaos.fleet.wait_for(lambda: holds_nothing(chaos), "nothing to be held", chaos.explain)
        assert not chaos.bodies("first", "end")


def all_over(chaos: Chaos, runs: list[str]) -> bool:
    return all(chaos.fleet.instance.get_run_by_id(run_id).is_finished for run_id in runs)
