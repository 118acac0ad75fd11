"""The database's connection breaks in the middle of a statement: before it, or before its answer."""

import dagster as dg
import pytest
import sqlalchemy
import yaml

from dagster_taskiq_kit import instance_pool
from dagster_taskiq_kit.database_outages import repeat_what_broke
from dagster_taskiq_kit.event_writing import write_events_shortly

from .conftest import MONITORING
from .proxy import Proxy

STATUS = dg.DagsterRunStatus
BREAKS = pytest.mark.parametrize("after_it", [False, True], ids=["before", "before_its_answer"])


@pytest.fixture
def database(postgres):
    proxy = Proxy.to(postgres())
    yield proxy
    proxy.close()


@pytest.fixture
def instance(tmp_path, database):
    url = database.url(database.target_url)
    storage = {"storage": {"postgres": {"postgres_url": url}}}
    (tmp_path / "dagster.yaml").write_text(yaml.safe_dump(storage))
    with dg.DagsterInstance.from_config(str(tmp_path)) as made:
        instance_pool.pool_connections(made)
        instance_pool.warm_instance(made)
        assert write_events_shortly(made)
        repeat_what_broke(made)
        yield made
        instance_pool.close_connections(made)


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
def test_an_event_is_in_the_log_once_though_its_statement_broke(instance, database, said, after_it):
    whole = dg.materialize([parted, fine], partition_key="a", instance=instance)
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
        dg.AssetCheckKey(key, "fine"), limit=5
    )
    assert [check.run_id for check in history] == [broken.run_id, whole.run_id]
    assert {check.status.value for check in history} == {"SUCCEEDED"}
    with instance.event_log_storage._connect() as session:
        tags = session.exec_driver_sql("SELECT event_id, key FROM asset_event_tags").fetchall()
    assert len(tags) == len(set(tags)) > 0
    assert len({event_id for event_id, _ in tags}) == 2


@BREAKS
def test_a_batch_of_events_is_in_the_log_once(instance, database, after_it):
    run = dg.materialize([both], instance=instance)
    entries = [
        entry
        for entry in instance.all_logs(run.run_id)
        if entry.dagster_event and entry.dagster_event.is_step_materialization
    ]
    copies = [
        entry._replace(run_id="another", timestamp=1.0 + n) for n, entry in enumerate(entries)
    ]
    database.break_at(b"'ASSET_MATERIALIZATION'", after_it=after_it)
    instance.event_log_storage.store_event_batch(copies)
    assert database.broke.is_set()
    assert counts(instance, "another") == {"ASSET_MATERIALIZATION": 2}


@BREAKS
def test_a_slot_of_a_pool_is_claimed_once(instance, database, after_it):
    storage = instance.event_log_storage
    storage.set_concurrency_slots("pool", 2)
    database.break_at(b"UPDATE concurrency_slots", after_it=after_it)
    assert storage.claim_concurrency_slot("pool", "run", "step").is_claimed
    assert database.broke.is_set()
    assert storage.get_concurrency_info("pool").active_slot_count == 1
    database.break_at(b"UPDATE concurrency_slots", after_it=after_it)
    storage.free_concurrency_slot_for_step("run", "step")
    assert database.broke.is_set()
    assert storage.get_concurrency_info("pool").active_slot_count == 0


@BREAKS
def test_what_was_read_is_read_again(instance, database, after_it):
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


@BREAKS
@pytest.mark.parametrize("said", [b"'STEP_OUTPUT'", b"'STEP_SUCCESS'", b"'PIPELINE_SUCCESS'"])
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
