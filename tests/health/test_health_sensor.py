"""The health sensor in real daemon ticks: what the UI shows is what Redis and the workers are."""

import dagster as dg
import pytest

from dagster_taskiq_kit import QueueObjective, build_taskiq_health_sensor
from dagster_taskiq_kit.dagster_health.sensors import MOST_EVENTS
from dagster_taskiq_kit.health.hysteresis import AGREEING

from .conftest import Watching


@pytest.mark.parametrize("storage", ["sqlite", "postgres"])
def test_what_happens_to_broker_and_workers_is_read_back_from_the_check_history(
    make_watching, storage
):
    with make_watching(storage=storage) as watching:
        worker = watching.start_worker(slots=1)
        tick = watching.tick()
        assert tick.skip_reason == "All 16 checks pass."
        assert tick.run_ids == []
        for path in [("redis", "reachable"), ("queue", "default", "backlog"),
                     ("workers", "heartbeats"), ("runs", "no_stuck_runs")]:  # fmt: skip
            assert watching.verdict(*path) == "ok", path

        watching.broker.kill()
        red = watching.ticks_until(lambda: watching.verdict("redis", "reachable") == "ERROR")
        assert red <= AGREEING
        assert "no answer" in watching.check("redis", "reachable").description
        assert "redis reachable" in watching.tick().skip_reason
        watching.broker.start()
        watching.ticks_until(lambda: watching.verdict("redis", "reachable") == "ok")

        worker.kill()
        worker.wait(20)
        watching.ticks_until(
            lambda: watching.verdict("queue", "default", "has_live_worker") == "ERROR"
        )
        assert watching.verdict("workers", "heartbeats") == "WARN"
        assert "worker-1" in watching.check("workers", "heartbeats").description
        changed = watching.transitions()
        reachable = [line for line in changed if line.startswith("redis reachable")]
        assert reachable == ["redis reachable ok error", "redis reachable error ok"]
        assert "queue/default has_live_worker ok error" in changed


def test_a_backlog_warns_then_is_an_error_then_is_well(watching: Watching):
    watching.tick()
    verdict = lambda: watching.verdict("queue", "default", "backlog")  # noqa: E731
    assert verdict() == "ok"
    for _ in range(3):
        watching.launch("waiting")
    watching.ticks_until(lambda: verdict() == "WARN")
    for _ in range(3):
        watching.launch("waiting")
    watching.ticks_until(lambda: verdict() == "ERROR")
    found = watching.check("queue", "default", "backlog")
    assert found.metadata["backlog"].value == 6
    assert found.metadata["thresholds"].value == "warn > 2, error > 4"
    assert "dagster-taskiq worker start -q default" in found.metadata["remedy"].value
    watching.gate.touch()
    watching.start_worker()
    watching.ticks_until(lambda: verdict() == "ok", most=30)
    backlogs = [
        each.event.dagster_event.asset_check_evaluation_data.metadata["backlog"].value
        for each in watching.history("queue", "default", "backlog")
    ]
    assert 6 in backlogs
    assert backlogs[0] <= 2


def test_unchanged_ticks_report_nothing_until_the_report_interval_and_materializations_come_first(
    watching: Watching,
):
    watching.start_worker()
    for _ in range(AGREEING + 1):  # the namespace becomes old enough, the lease is renewed
        watching.tick()
    instance = watching.instance
    before = events_of(instance, dg.DagsterEventType.ASSET_CHECK_EVALUATION)
    for _ in range(5):
        tick = watching.tick()
        assert tick.skip_reason == "All 16 checks pass."
    assert events_of(instance, dg.DagsterEventType.ASSET_CHECK_EVALUATION) == before
    first = events_of(instance, dg.DagsterEventType.ASSET_MATERIALIZATION)[0]
    assert first < before[0]


def test_figures_that_change_are_reported_within_two_ticks_as_one_event(watching: Watching):
    watching.start_worker()
    for _ in range(AGREEING + 1):
        watching.tick()
    key = dg.AssetKey(["taskiq", "queue", "default"])

    def shown(name: str) -> int:
        event = watching.instance.get_latest_materialization_event(key)
        return event.asset_materialization.metadata[name].value

    assert shown("running") == 0
    evaluations = events_of(watching.instance, dg.DagsterEventType.ASSET_CHECK_EVALUATION)
    run_id = watching.launch("waiting")
    snapshot = watching.fleet.snapshot
    watching.fleet.wait_for(lambda: snapshot().queue("default").running == 2, "its step to run")
    # Verdicts that stand are reported again each few seconds here, which is not what is tried.
    assert watching.ticks_until(lambda: shown("running") == 2) <= 3
    since = events_of(watching.instance, dg.DagsterEventType.ASSET_CHECK_EVALUATION)
    assert len(since) - len(evaluations) <= 16
    watching.gate.touch()
    assert watching.fleet.wait_for_run(run_id).status is dg.DagsterRunStatus.SUCCESS
    watching.ticks_until(lambda: shown("running") == 0)


def test_a_queue_that_nobody_declared_is_seen_in_the_catalog(watching: Watching):
    watching.start_worker(queues=["default", "adhoc"])
    for _ in range(AGREEING + 1):
        watching.tick()
    said = watching.check("workers", "other_queues")
    assert "adhoc (0 waiting, 0 running)" in said.description
    assert watching.verdict("workers", "other_queues") == "ok"


def test_a_hundred_unchanged_ticks_write_one_report_and_none_writes_more_than_twenty_events(
    watching: Watching,
):
    watching.start_worker()
    queues = {f"queue-{number}": QueueObjective(min_workers=0) for number in range(12)}
    settings = watching.fleet.settings.model_copy(update={"queues": queues})
    sensor = build_taskiq_health_sensor(settings)
    cursor, reported = None, []
    for _ in range(100):
        context = dg.build_sensor_context(
            instance=watching.instance, cursor=cursor, sensor_name="taskiq_health_sensor"
        )
        result = sensor(context)
        cursor = result.cursor
        kinds = [type(event) for event in result.asset_events]
        assert len(kinds) <= MOST_EVENTS
        evaluations = kinds.count(dg.AssetCheckEvaluation)
        assert kinds[len(kinds) - evaluations :] == [dg.AssetCheckEvaluation] * evaluations
        reported.append(len(kinds))
    # 13 queues with 5 checks each, redis with 3, workers with 7, runs with 1; each once, in turn.
    assert sum(reported) == 13 * (1 + 5) + (1 + 3) + (1 + 7) + (1 + 1)
    assert reported[20:] == [0] * 80


def test_in_a_second_code_location_the_sensor_is_quiet(make_watching):
    with make_watching() as watching:
        events = dg.DagsterEventType.ASSET_CHECK_EVALUATION
        with watching.in_location("second") as second:
            watching.tick()  # the first holds the watch for four ticks
            before = events_of(watching.instance, events)
            tick = second.tick()
            assert tick.skip_reason == (
                "Sensor 'taskiq_health_sensor' of code location 'health_jobs.py' watches namespace "
                f"{watching.fleet.settings.namespace!r} already: this one is quiet."
            )
            assert events_of(watching.instance, events) == before


def events_of(instance: dg.DagsterInstance, event_type: dg.DagsterEventType) -> list[int]:
    """Return the storage ids of all events of a type that belong to no run, oldest first."""
    records = instance.get_event_records(dg.EventRecordsFilter(event_type), ascending=True)
    assert {record.run_id for record in records} <= {""}
    return [record.storage_id for record in records]
