"""PostgreSQL goes away for several leases: nothing is lost for it, and no run fails."""

import time

import dagster as dg
import pytest

from .conftest import MONITORING, Chaos
from .proxy import Proxy

STATUS = dg.DagsterRunStatus


@pytest.fixture
def database(postgres):
    proxy = Proxy.to(postgres())
    yield proxy
    proxy.close()


@pytest.fixture
def chaos(make_chaos, database):
    storage = {"postgres": {"postgres_url": database.url(database.target_url)}}
    with make_chaos(config={**MONITORING, "storage": storage}) as made:
        yield made


def test_a_database_that_is_away_for_three_leases_costs_no_step_and_no_run(
    chaos: Chaos, database: Proxy
):
    chaos.start_orchestrating()
    chaos.start_executing()
    run_id = chaos.launch("chain")
    chaos.wait_for_bodies("first")
    database.cut()
    cut_at_s = time.monotonic()
    chaos.open_gates("first", "second")
    chaos.fleet.wait_for(
        lambda: time.monotonic() - cut_at_s > 3 * chaos.fleet.settings.lease_s, "three leases"
    )
    assert len(chaos.bodies("first")) == 1
    assert not chaos.bodies("second")
    database.mend()
    assert chaos.fleet.wait_for_run(run_id, 90).status is STATUS.SUCCESS, chaos.explain()
    for step in ("first", "second"):
        assert len(chaos.bodies(step)) == len(chaos.bodies(step, "end")) == 1
    assert not any("STEP_UP_FOR_RETRY" in line for line in chaos.fleet.said(run_id))
    assert chaos.monitor() == []
    assert chaos.fleet.instance.count_resume_run_attempts(run_id) == 0
