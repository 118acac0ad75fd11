"""A PostgreSQL that is there and says "not now" costs no step and no run."""

import contextlib
import time

import dagster as dg
import psycopg2
import pytest
import yaml

from dagster_taskiq_kit.dagster_internals.postgres import outages as database_outages
from dagster_taskiq_kit.dagster_internals.postgres.pool import pooled_connections

from .conftest import Chaos

STATUS = dg.DagsterRunStatus
RUNS = 3


@dg.job
def nothing():
    """A job for runs that are only written to."""


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


def test_a_session_with_a_server_that_is_the_primary_no_more_is_not_kept(make_chaos):
    """New sessions may write while the old one may not, as when a name points to another server."""
    with make_chaos(storage="postgres") as chaos:
        run = chaos.fleet.instance.get_run_by_id(chaos.launch("one"))
        made = session(chaos)
        database = made.info.dbname
        execute(made, f"ALTER DATABASE {database} SET default_transaction_read_only = on")
        with (
            dg.DagsterInstance.from_config(str(chaos.fleet.home)) as instance,
            pooled_connections(instance),
        ):
            instance.get_runs_count()  # opens the session that is kept
            execute(made, f"ALTER DATABASE {database} RESET default_transaction_read_only")
            instance.report_engine_event("Written in a new session.", run)
        made.close()
        said = chaos.fleet.said(run.run_id)
        assert sum("Written in a new session." in line for line in said) == 1


#: Raises an error of its argument's code at the first two inserts: what it counts by is rolled back
#: with neither.
_REFUSES_TWICE = """
CREATE SEQUENCE refusals;
CREATE FUNCTION refuse() RETURNS trigger AS $$
BEGIN
    IF nextval('refusals') < 3 THEN RAISE EXCEPTION 'not now' USING ERRCODE = TG_ARGV[0]; END IF;
    RETURN NEW;
END $$ LANGUAGE plpgsql;
CREATE TRIGGER refusing BEFORE INSERT ON event_logs FOR EACH ROW EXECUTE FUNCTION refuse('{code}')
"""


@pytest.fixture(scope="module")
def refusing(postgres, tmp_path_factory):
    """An instance, and what makes its event log refuse two inserts with a SQLSTATE."""
    folder, url = tmp_path_factory.mktemp("refusing"), postgres()
    config = {"storage": {"postgres": {"postgres_url": url}}}
    (folder / "dagster.yaml").write_text(yaml.safe_dump(config))
    made = psycopg2.connect(url)
    made.autocommit = True

    def refuse(code: str) -> None:
        execute(made, "DROP TRIGGER IF EXISTS refusing ON event_logs")
        execute(made, "DROP FUNCTION IF EXISTS refuse; DROP SEQUENCE IF EXISTS refusals")
        execute(made, _REFUSES_TWICE.format(code=code))

    with (
        dg.DagsterInstance.from_config(str(folder)) as instance,
        pooled_connections(instance),
    ):
        yield instance, refuse
    made.close()


@pytest.mark.parametrize("code", sorted(database_outages._NOT_NOW))
def test_whatever_says_not_now_is_asked_again_until_it_holds(refusing, code, monkeypatch):
    monkeypatch.setattr(database_outages, "_PAUSE_S", 0.01)
    instance, refuse = refusing
    run = instance.create_run_for_job(job_def=nothing)
    refuse(code)
    instance.report_engine_event("Written once.", run)
    said = [entry.message for entry in instance.all_logs(run.run_id)]
    assert said.count("Written once.") == 1


@pytest.mark.parametrize("code", ["42501", "23514", "22001"])
def test_what_will_never_hold_is_an_error_at_once(refusing, code):
    instance, refuse = refusing
    run = instance.create_run_for_job(job_def=nothing)
    refuse(code)
    with pytest.raises(Exception, match="not now"):
        instance.report_engine_event("Never written.", run)
