"""A sensor that has stopped shows in the catalog: what it reported is not fresh any more."""

import dagster as dg
from dagster._daemon.freshness import FreshnessDaemon

from .conftest import Watching

REDIS = dg.AssetKey(["taskiq", "redis"])
#: The shortest that Dagster takes.
WITHIN_S = 60


def freshness(watching: Watching) -> str:
    """Have the real daemon's code evaluate freshness once more; returns the broker's."""
    list(FreshnessDaemon().run_iteration(watching.process_context))
    record = watching.instance.get_freshness_state_records([REDIS])[REDIS]
    return record.freshness_state.value


def test_what_a_stopped_sensor_reported_is_not_fresh_any_more(make_watching):
    with make_watching(environment={"FRESH_WITHIN_S": str(WITHIN_S)}) as watching:
        watching.tick()
        assert freshness(watching) == "PASS"
        # Nobody ticks any more.
        watching.fleet.wait_for(
            lambda: freshness(watching) == "FAIL", "the report to be old", within_s=WITHIN_S + 60
        )
