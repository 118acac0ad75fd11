"""A PostgreSQL that is there and says "not now" costs no step and no run."""

import contextlib
import time

import dagster as dg
import psycopg2
import pytest

from .conftest import Chaos

STATUS = dg.DagsterRunStatus
RUNS = 3


def session(chaos: Chaos):
    made = psycopg2.connect(chaos.database_url())
    made.autocommit = True
    return made


def execute(made, statement: str) -> None:
    with made.cursor() as cursor:
        cursor.execute(statement)


@contextlib.contextmanager
def read_only(chaos: Chaos):
    """As a primary is that was just made a replica."""
    made = session(chaos)
    execute(made, "ALTER SYSTEM SET default_transaction_read_only = on")
    execute(made, "SELECT pg_reload_conf()")
    yield
    execute(made, "SET default_transaction_read_only = off")
    execute(made, "ALTER SYSTEM RESET default_transaction_read_only")
    execute(made, "SELECT pg_reload_conf()")
    made.close()


@contextlib.contextmanager
def no_connection_left(chaos: Chaos):
    held = []
    deadline_s = time.monotonic() + 3 * chaos.fleet.settings.lease_s
    # What the fleet gives back meanwhile is taken, too.
    while time.monotonic() < deadline_s:
        try:
            held.append(session(chaos))
        except psycopg2.OperationalError:
            time.sleep(0.05)
    yield
    for each in held:
        each.close()


@pytest.mark.parametrize("refusing", [read_only, no_connection_left])
def test_a_database_that_refuses_for_a_while_costs_no_step_and_no_run(make_chaos, refusing):
    with make_chaos(storage="postgres") as chaos:
        worker = chaos.start_worker(slots=RUNS, run_slots=RUNS)
        runs = [chaos.launch("one") for _ in range(RUNS)]
        chaos.wait_for_bodies("first", RUNS)
        with refusing(chaos):
            chaos.open_gates("first")
            chaos.wait_for_bodies("first", RUNS, what="end")
            until_s = time.monotonic() + 2 * chaos.fleet.settings.lease_s
            chaos.fleet.wait_for(lambda: time.monotonic() > until_s, "two leases")
        for run_id in runs:
            assert chaos.fleet.wait_for_run(run_id, 90).status is STATUS.SUCCESS, chaos.explain()
        assert len(chaos.bodies("first")) == RUNS
        assert chaos.fleet.stop_worker(worker) == 0
