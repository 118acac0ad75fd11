"""What a child's instance does otherwise than as shipped leaves the same traces in PostgreSQL."""

import dagster as dg
import pytest
import sqlalchemy

from dagster_taskiq_kit.dagster_health import doctor
from dagster_taskiq_kit.dagster_internals.postgres import pool as instance_pool
from dagster_taskiq_kit.dagster_internals.postgres.event_insert import (
    store_plain_events_by_one_statement,
    why_as_shipped,
)

ROW = "run_id, event, dagster_event_type, timestamp, step_key, asset_key, partition"


@pytest.fixture
def instance(make_fleet):
    with make_fleet("postgres") as fleet, dg.DagsterInstance.from_config(str(fleet.home)) as made:
        instance_pool.pool_connections(made)
        instance_pool.warm_instance(made)
        yield made
        instance_pool.close_connections(made)


@pytest.fixture
def storage(instance):
    return instance.event_log_storage


def rows(storage):
    with storage._engine.connect() as session:
        query = f"SELECT {ROW} FROM event_logs ORDER BY id"
        return [tuple(row) for row in session.exec_driver_sql(query)]


@dg.op(config_schema={"fails": bool}, retry_policy=dg.RetryPolicy(max_retries=1))
def logs_100_percent(context):
    context.log.info("100 % %(of) it, : and \x00-less 'quotes' \\ ä")
    if context.op_config["fails"]:
        raise ValueError("on purpose %s")
    return 1


@dg.job
def job():
    logs_100_percent()


@dg.asset(partitions_def=dg.StaticPartitionsDefinition(["a", "b"]))
def parted(context):
    context.add_output_metadata({"rows": 5})
    return 1


@dg.asset_check(asset=parted)
def fine() -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=True)


def execute_everything(instance):
    for fails in (False, True):
        config = {"ops": {"logs_100_percent": {"config": {"fails": fails}}}}
        job.execute_in_process(run_config=config, instance=instance, raise_on_error=False)
    dg.materialize([parted, fine], partition_key="a", instance=instance)


def test_the_rows_are_those_that_dagster_writes(instance, storage, monkeypatch):
    assert why_as_shipped(instance) == ""  # this release's way to store events is known
    store_plain_events_by_one_statement(instance)
    shortly = storage.store_event
    short, stored = [], []

    def store_and_remember(event):
        before = rows(storage)
        shortly(event)
        stored.append(event)
        short.append(rows(storage)[len(before)])

    monkeypatch.setattr(storage, "store_event", store_and_remember)
    execute_everything(instance)
    types = {event.dagster_event.event_type_value for event in stored if event.is_dagster_event}
    assert {"STEP_UP_FOR_RETRY", "STEP_FAILURE", "STEP_SUCCESS", "ENGINE_EVENT"} <= types
    assert {"ASSET_MATERIALIZATION", "ASSET_CHECK_EVALUATION", "PIPELINE_SUCCESS"} <= types
    before = len(rows(storage))
    for event in stored:
        if not (event.is_dagster_event and "ASSET_CHECK" in event.dagster_event.event_type_value):
            type(storage).store_event(storage, event)
    checks = {"ASSET_CHECK_EVALUATION", "ASSET_CHECK_EVALUATION_PLANNED"}
    assert rows(storage)[before:] == [row for row in short if row[2] not in checks]


def test_assets_and_checks_are_indexed_as_ever(instance):
    store_plain_events_by_one_statement(instance)
    execute_everything(instance)
    key = dg.AssetKey("parted")
    assert instance.get_latest_materialization_event(key).asset_materialization.partition == "a"
    assert instance.get_materialized_partitions(key) == {"a"}
    (check,) = instance.event_log_storage.get_asset_check_execution_history(
        dg.AssetCheckKey(key, "fine"), limit=5
    )
    assert check.status.value == "SUCCEEDED"


def test_a_plain_event_is_one_statement_and_committed_by_it(instance, storage):
    store_plain_events_by_one_statement(instance)
    statements = []
    sqlalchemy.event.listen(
        storage._engine, "before_cursor_execute", lambda *call: statements.append(call[2])
    )
    config = {"ops": {"logs_100_percent": {"config": {"fails": False}}}}
    run = instance.create_run_for_job(job, run_config=config)
    statements.clear()
    instance.report_engine_event("hello", run)
    assert len(statements) == 1
    assert statements[0].startswith("INSERT INTO event_logs")
    with dg.DagsterInstance.from_ref(instance.get_ref()) as another:
        assert another.all_logs(run.run_id)[-1].dagster_event.message == "hello"


def test_another_way_to_store_events_is_left_alone(instance, storage, monkeypatch, caplog):

    def store_event(self, event):
        return original(self, event)

    original = type(storage).store_event
    monkeypatch.setattr(type(storage), "store_event", store_event)
    store_plain_events_by_one_statement(instance)
    assert "store_event" not in vars(storage)
    assert "stores events in another way" in caplog.text
    (finding,) = doctor._event_insert(instance, None)
    assert "stores events in another way" in finding.sentence
    assert not finding.ok


def test_another_storage_is_left_alone():
    with dg.DagsterInstance.ephemeral() as instance:
        store_plain_events_by_one_statement(instance)
        assert "store_event" not in vars(instance.event_log_storage)


def test_a_session_has_both_timeouts_after_one_statement(instance, storage):
    ours = [each for each in storage._engine.pool.dispatch.connect if "dagster" in each.__module__]
    assert [each.__module__ for each in ours] == [
        "dagster_taskiq_kit.dagster_internals.postgres.pool"
    ]
    with storage._engine.connect() as session:
        assert session.exec_driver_sql("SHOW statement_timeout").scalar() == "1h"
        assert session.exec_driver_sql("SHOW idle_session_timeout").scalar() == "2s"
