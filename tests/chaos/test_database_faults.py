"""PostgreSQL goes away for several leases: nothing is lost for it, and no run fails."""

import os
import shutil
import signal
import tempfile
import time
from pathlib import Path

import dagster as dg
import pytest

from benchmarks.servers import serve_postgres, start_postgres
from dagster_taskiq_kit.host.process_group import ProcessGroup

from .conftest import MONITORING, Chaos
from .proxy import Proxy

STATUS = dg.DagsterRunStatus


@pytest.fixture
def chaos(make_chaos, database):
    storage = {"postgres": {"postgres_url": database.url(database.target_url)}}
    with make_chaos(config={**MONITORING, "storage": storage}) as made:
        yield made


def test_a_database_that_is_away_for_three_leases_costs_no_step_and_no_run(
    chaos: Chaos, database: Proxy
):
    run_id = begin(chaos)
    database.cut()
    stay_away(chaos)
    database.mend()
    goes_on(chaos, run_id)


def test_a_database_that_crashes_and_is_started_again_costs_no_step_and_no_run(make_chaos):
    # The server runs as another user when we are root: not below a private folder.
    folder = Path(tempfile.mkdtemp(prefix="taskiq-kit-pg-"))
    folder.chmod(0o755)
    try:
        with ProcessGroup() as group:
            server = start_postgres(group, folder / "server")
            storage = {"postgres": {"postgres_url": server.create_database("crashes")}}
            with make_chaos(config={**MONITORING, "storage": storage}) as chaos:
                run_id = begin(chaos)
                os.kill(server.process_id, signal.SIGQUIT)  # at once, as in a crash
                stay_away(chaos)
                serve_postgres(group, folder / "server", server.address)
                goes_on(chaos, run_id)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def begin(chaos: Chaos) -> str:
    chaos.start_orchestrating()
    chaos.start_executing()
    run_id = chaos.launch("chain")
    chaos.wait_for_bodies("first")
    return run_id


def stay_away(chaos: Chaos) -> None:
    """Let work end while the database is away, and wait for three leases."""
    away_at_s = time.monotonic()
    chaos.open_gates("first", "second")
    chaos.fleet.wait_for(
        lambda: time.monotonic() - away_at_s > 3 * chaos.fleet.settings.lease_s, "three leases"
    )
    assert len(chaos.bodies("first")) == 1
    assert not chaos.bodies("second")


def goes_on(chaos: Chaos, run_id: str) -> None:
    assert chaos.fleet.wait_for_run(run_id, 90).status is STATUS.SUCCESS, chaos.explain()
    for step in ("first", "second"):
        assert len(chaos.bodies(step)) == len(chaos.bodies(step, "end")) == 1
    assert not any("STEP_UP_FOR_RETRY" in line for line in chaos.fleet.said(run_id))
    assert chaos.monitor() == []
    assert chaos.fleet.instance.count_resume_run_attempts(run_id) == 0
