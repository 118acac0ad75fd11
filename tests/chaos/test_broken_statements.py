"""The database's connection breaks in the middle of a statement: before it, or before its answer."""

import contextlib
import os
import signal
import threading
import time
import uuid

import dagster as dg
import psycopg2
import pytest
import sqlalchemy
import yaml

from dagster_taskiq_kit.dagster_internals import names as internals
from dagster_taskiq_kit.dagster_internals.postgres import (
    outages as database_outages,
)
from dagster_taskiq_kit.dagster_internals.postgres import (
    pool as instance_pool,
)
from dagster_taskiq_kit.dagster_internals.postgres.event_insert import (
    store_plain_events_by_one_statement,
    why_as_shipped,
)
from dagster_taskiq_kit.dagster_internals.postgres.outages import open_instance_through_outages
from dagster_taskiq_kit.dagster_internals.postgres.repeated_statements import (
    StoredOnce,
    repeat_what_broke,
)
from dagster_taskiq_kit.host.process_group import wait_until

from .conftest import MONITORING
from .proxy import Proxy

STATUS = dg.DagsterRunStatus
BREAKS = pytest.mark.parametrize("after_it", [False, True], ids=["before", "before_its_answer"])


@contextlib.contextmanager
def open_through(proxy, folder):
    """An instance as children have it, behind a proxy."""
    url = proxy.url(proxy.target_url)
    pools = {"default_limit": 2}
    storage = {"storage": {"postgres": {"postgres_url": url}}, "concurrency": {"pools": pools}}
    (folder / "dagster.yaml").write_text(yaml.safe_dump(storage))
    with dg.DagsterInstance.from_config(str(folder)) as made:
        instance_pool.pool_connections(made)
        instance_pool.warm_instance(made)
        assert why_as_shipped(made) == ""
        store_plain_events_by_one_statement(made)
        repeat_what_broke(made)
        yield made
        instance_pool.close_connections(made)


@pytest.fixture
def instance(tmp_path, database):
    with open_through(database, tmp_path) as made:
        yield made


@pytest.fixture(scope="module")
def common(postgres, tmp_path_factory):
    """One database and its instance for all that only break a statement."""
    proxy = Proxy.to(postgres())
    with open_through(proxy, tmp_path_factory.mktemp("common")) as made:
        yield proxy, made
    proxy.close()


@pytest.fixture(scope="module")
def whole(common):
    """A run that nothing broke."""
    return dg.materialize([parted, fine], partition_key="a", instance=common[1])


@dg.asset(partitions_def=dg.StaticPartitionsDefinition(["a", "b"]))
def parted(context):
    context.add_output_metadata({"rows": 5})
    return 1


@dg.asset_check(asset=parted)
def fine() -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=True)


@dg.multi_asset(specs=[dg.AssetSpec("left"), dg.AssetSpec("right")])
def both():
    yield dg.MaterializeResult("left")
    yield dg.MaterializeResult("right")


def counts(instance, run_id):
    found = {}
    for entry in instance.all_logs(run_id):
        kind = entry.dagster_event.event_type_value if entry.dagster_event else "message"
        found[kind] = found.get(kind, 0) + 1
    return found


@BREAKS
@pytest.mark.parametrize(
    "said",
    [
        b"'STEP_START'",
        b"'STEP_OUTPUT'",
        b"'ASSET_MATERIALIZATION'",
        b"INSERT INTO asset_event_tags",
        b"INSERT INTO asset_keys",
        b"'ASSET_CHECK_EVALUATION'",
        b"UPDATE asset_check_executions",
        b"'STEP_SUCCESS'",
        b"'PIPELINE_SUCCESS'",
        b"UPDATE runs",
    ],
)
def test_an_event_is_in_the_log_once_though_its_statement_broke(common, whole, said, after_it):
    database, instance = common
    database.break_at(said, after_it=after_it)
    broken = dg.materialize([parted, fine], partition_key="b", instance=instance)
    assert database.broke.is_set()
    assert broken.success
    assert counts(instance, broken.run_id) == counts(instance, whole.run_id)
    assert instance.get_run_by_id(broken.run_id).status is STATUS.SUCCESS
    key = dg.AssetKey("parted")
    assert instance.get_latest_materialization_event(key).run_id == broken.run_id
    assert instance.get_materialized_partitions(key) == {"a", "b"}
    history = instance.event_log_storage.get_asset_check_execution_history(
        dg.AssetCheckKey(key, "fine"), limit=100
    )
    (check,) = [each for each in history if each.run_id == broken.run_id]
    assert check.status.value == "SUCCEEDED"
    tags = {run.run_id: sorted(tags_of_events(instance, run.run_id)) for run in (broken, whole)}
    assert len(set(tags[broken.run_id])) == len(tags[broken.run_id]) == len(tags[whole.run_id]) > 0


def tags_of_events(instance, run_id):
    query = (
        "SELECT asset_event_tags.key FROM asset_event_tags JOIN event_logs "
        f"ON event_logs.id = event_id WHERE run_id = '{run_id}'"
    )
    with instance.event_log_storage._connect() as session:
        return [key for (key,) in session.exec_driver_sql(query)]


@BREAKS
def test_a_batch_of_events_is_in_the_log_once(common, after_it):
    database, instance = common
    run = dg.materialize([both], instance=instance)
    entries = [
        entry
        for entry in instance.all_logs(run.run_id)
        if entry.dagster_event and entry.dagster_event.is_step_materialization
    ]
    another = f"another-{after_it}"
    copies = [entry._replace(run_id=another, timestamp=1.0 + n) for n, entry in enumerate(entries)]
    database.break_at(b"'ASSET_MATERIALIZATION'", after_it=after_it)
    instance.event_log_storage.store_event_batch(copies)
    assert database.broke.is_set()
    assert counts(instance, another) == {"ASSET_MATERIALIZATION": 2}


@BREAKS
def test_a_slot_of_a_pool_is_claimed_once(common, after_it):
    database, instance = common
    pool = uuid.uuid4().hex
    storage = instance.event_log_storage
    storage.set_concurrency_slots(pool, 2)
    database.break_at(b"UPDATE concurrency_slots", after_it=after_it)
    assert storage.claim_concurrency_slot(pool, pool, "step").is_claimed
    assert database.broke.is_set()
    assert storage.get_concurrency_info(pool).active_slot_count == 1
    database.break_at(b"UPDATE concurrency_slots", after_it=after_it)
    storage.free_concurrency_slot_for_step(pool, "step")
    assert database.broke.is_set()
    assert storage.get_concurrency_info(pool).active_slot_count == 0


@BREAKS
@pytest.mark.parametrize("said", [b"DELETE FROM pending_steps", b"UPDATE pending_steps"])
def test_a_freed_slot_goes_to_who_waits_for_it(common, said, after_it):
    database, instance = common
    pool = uuid.uuid4().hex
    storage = instance.event_log_storage
    storage.set_concurrency_slots(pool, 1)
    assert storage.claim_concurrency_slot(pool, pool, "first").is_claimed
    assert not storage.claim_concurrency_slot(pool, pool, "second").is_claimed
    database.break_at(said, after_it=after_it)
    storage.free_concurrency_slot_for_step(pool, "first")
    assert database.broke.is_set()
    assert storage.claim_concurrency_slot(pool, pool, "second").is_claimed
    assert not storage.claim_concurrency_slot(pool, pool, "third").is_claimed


@BREAKS
def test_a_pool_that_is_first_used_gets_its_default_limit(common, after_it):
    database, instance = common
    pool = uuid.uuid4().hex
    database.break_at(b"INSERT INTO concurrency_limits", after_it=after_it)
    storage = instance.event_log_storage
    assert storage.initialize_concurrency_limit_to_default(pool)
    assert database.broke.is_set()
    (limit,) = [each for each in storage.get_pool_limits() if each.name == pool]
    assert limit.limit == 2
    assert storage.get_concurrency_info(pool).slot_count == 2


@BREAKS
@pytest.mark.parametrize("said", [b"UPDATE runs", b"UPDATE run_tags", b"INSERT INTO run_tags"])
def test_tags_of_a_run_are_there_once_in_both_places(common, said, after_it):
    database, instance = common
    run = dg.materialize([both], instance=instance, tags={"old": "1"})
    database.break_at(said, after_it=after_it)
    instance.add_run_tags(run.run_id, {"old": "2", "new": "3"})
    assert database.broke.is_set()
    assert instance.get_run_by_id(run.run_id).tags.items() >= {("old", "2"), ("new", "3")}
    with instance.run_storage.connect() as session:
        query = f"SELECT key, value FROM run_tags WHERE run_id = '{run.run_id}'"
        rows = [tuple(row) for row in session.exec_driver_sql(query)]
    assert sorted(row for row in rows if row[0] in ("old", "new")) == [("new", "3"), ("old", "2")]


def test_an_event_that_the_server_was_still_storing_when_it_lost_us_is_there_once(
    instance, database
):
    """It waits for a lock then, and does not notice that nobody hears its answer."""
    run = dg.materialize([both], instance=instance)
    with psycopg2.connect(database.target_url) as holder, holder.cursor() as cursor:
        cursor.execute("LOCK TABLE event_logs IN EXCLUSIVE MODE")

        def let_go() -> None:
            query = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            deadline_s = time.monotonic() + 30
            with psycopg2.connect(database.target_url) as other, other.cursor() as watching:
                while time.monotonic() < deadline_s:
                    watching.execute(query)
                    if watching.fetchone()[0]:
                        break
                    other.commit()
            database.reset()
            assert wait_until(second_try.is_set, 30)
            holder.commit()

        second_try = threading.Event()
        await_inserts = StoredOnce._await_inserts

        def told(connection) -> None:
            second_try.set()
            await_inserts(connection)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(StoredOnce, "_await_inserts", staticmethod(told))
            letting_go = threading.Thread(target=let_go)
            letting_go.start()
            instance.report_engine_event("said once", dg.DagsterRun("job", run_id=run.run_id))
            letting_go.join()
    said = [e.dagster_event.message for e in instance.all_logs(run.run_id) if e.dagster_event]
    assert said.count("said once") == 1


def test_an_assets_row_does_not_go_back_to_an_older_event(instance):
    """While the database was away, another run stored a newer one."""
    older, newer = (dg.materialize([both], instance=instance, tags={"n": str(n)}) for n in range(2))
    event = next(
        entry
        for entry in instance.all_logs(older.run_id)
        if entry.dagster_event and entry.dagster_event.is_step_materialization
    )
    StoredOnce(instance.event_log_storage).complete(event)
    latest = instance.get_latest_materialization_event(event.dagster_event.asset_key)
    assert latest.run_id == newer.run_id


def test_who_is_told_to_end_outlasts_no_database(instance, database, monkeypatch):
    monkeypatch.setattr(database_outages, "_INTERRUPTED_S", 0.5)
    database.cut()
    sooner = threading.Timer(1, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with internals.capture_interrupts():
        sooner.start()
        with pytest.raises(Exception, match="refused|closed|retries"):
            instance.get_run_by_id("a")
        assert internals.check_captured_interrupt()


def test_an_instance_is_opened_as_soon_as_its_database_is_there(
    instance, database, tmp_path, monkeypatch
):
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    database.cut()
    threading.Timer(1, database.mend).start()
    with open_instance_through_outages() as opened:
        assert instance_pool.instance_id(opened) == instance_pool.instance_id(instance)


@BREAKS
def test_what_was_read_is_read_again(common, after_it):
    database, instance = common
    run = dg.materialize([both], instance=instance)
    database.break_at(b"FROM runs", after_it=after_it)
    assert instance.get_run_by_id(run.run_id).status is STATUS.SUCCESS
    assert database.broke.is_set()
    database.break_at(b"FROM event_logs", after_it=after_it)
    assert len(instance.get_records_for_run(run.run_id, limit=3).records) == 3
    assert database.broke.is_set()


def test_a_statement_that_is_wrong_is_not_asked_again(instance):
    with instance.event_log_storage._connect() as session:
        session.exec_driver_sql("DROP TABLE concurrency_slots")
    with pytest.raises(sqlalchemy.exc.ProgrammingError, match="concurrency_slots"):
        instance.event_log_storage.get_concurrency_info("pool")


@pytest.mark.parametrize(
    ("said", "after_it"),
    [(b"'STEP_OUTPUT'", True), (b"'STEP_SUCCESS'", False), (b"'PIPELINE_SUCCESS'", True)],
)
def test_a_run_whose_statement_broke_ends_in_success(make_chaos, database, said, after_it):
    storage = {"postgres": {"postgres_url": database.url(database.target_url)}}
    with make_chaos(config={**MONITORING, "storage": storage}) as chaos:
        chaos.start_orchestrating()
        chaos.start_executing()
        run_id = chaos.launch("chain")
        chaos.wait_for_bodies("first")
        database.break_at(said, after_it=after_it)
        chaos.open_gates("first", "second")
        assert chaos.fleet.wait_for_run(run_id, 90).status is STATUS.SUCCESS, chaos.explain()
        assert database.broke.is_set()
        for step in ("first", "second"):
            assert len(chaos.bodies(step)) == len(chaos.bodies(step, "end")) == 1
        found = counts(chaos.fleet.instance, run_id)
        assert found["STEP_OUTPUT"] == found["STEP_SUCCESS"] == 2
        assert found["PIPELINE_SUCCESS"] == 1
