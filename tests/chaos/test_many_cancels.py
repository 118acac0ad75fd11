"""Five hundred runs, queued and beginning and at work, cancelled in a loop."""

from collections import Counter

import dagster as dg
import pytest

from dagster_taskiq_kit.dagster_internals.postgres.pool import pooled_connections

from .conftest import Chaos
from .test_cancel import cancel, holds_nothing

STATUS = dg.DagsterRunStatus
OPEN = [
    status for status in STATUS if status not in (STATUS.SUCCESS, STATUS.FAILURE, STATUS.CANCELED)
]


# Dagster writes eight events a run, and three other tests share the machine.
@pytest.mark.timeout(900)
def test_five_hundred_runs_cancelled_in_a_loop_all_end_canceled(make_chaos):
    with make_chaos(storage="postgres") as chaos:
        chaos.start_worker(slots=2, run_slots=2)
        instance = chaos.fleet.instance
        # As the webserver has it, which launches and cancels in the field.
        with pooled_connections(instance):
            runs = [chaos.launch("one") for _ in range(500)]
            chaos.wait_for_bodies("first", 2)
            for run_id in runs:
                cancel(chaos, run_id)
            chaos.fleet.wait_for(lambda: not still_open(chaos), "all runs to end", chaos.explain)
            statuses = Counter(run.status for run in instance.get_runs())
            assert statuses == {STATUS.CANCELED: len(runs)}, chaos.explain()
        chaos.fleet.wait_for(lambda: holds_nothing(chaos), "nothing to be held", chaos.explain)
        assert not chaos.bodies("first", "end")


def still_open(chaos: Chaos) -> int:
    return chaos.fleet.instance.get_runs_count(dg.RunsFilter(statuses=OPEN))
