"""Each stuck-run case made for real: seen, said and acted on once."""

import signal
import time

import dagster as dg

from dagster_taskiq_kit.broker import readings
from dagster_taskiq_kit.dagster_health import run_health
from dagster_taskiq_kit.vocabulary.messages import run_task_id, step_task_id
from dagster_taskiq_kit.vocabulary.states import State
from dagster_taskiq_kit.vocabulary.tags import STUCK_ACTION_TAG

from .conftest import Watching

STATUS = dg.DagsterRunStatus
SENSOR = "taskiq_stuck_run_sensor"
NO_MONITORING = {"run_monitoring": {"enabled": False}}


def said(watching: Watching, run_id: str, words: str) -> int:
    return sum(words in line for line in watching.fleet.said(run_id))


def tick_until_acted(watching: Watching, run_id: str, mark: str) -> None:
    def acted() -> bool:
        watching.tick(SENSOR)
        return mark in watching.instance.get_run_by_id(run_id).tags.get(STUCK_ACTION_TAG, "")

    watching.fleet.wait_for(acted, f"{mark} of {run_id}", within_s=150)


def event(kind: str, job: str) -> dg.DagsterEvent:
    return dg.DagsterEvent(kind, job)


def started(watching: Watching, run_id: str) -> None:
    watching.fleet.wait_for(
        lambda: any("STEP_START" in line for line in watching.fleet.said(run_id)), "its step"
    )


def test_a_run_that_waits_where_nobody_serves_is_reported_once(watching: Watching):
    watching.start_worker(queues=["elsewhere"])
    run_id = watching.launch("waiting")
    tick_until_acted(watching, run_id, "report:unserved:0")
    for _ in range(2):
        assert "Stuck: 1 run." in watching.tick(SENSOR).skip_reason
    assert said(watching, run_id, "This run is stuck: Work of it waits in queue 'default'") == 1
    watching.tick()
    assert watching.verdict("runs", "no_stuck_runs") == "ERROR"
    assert run_id[:8] in watching.check("runs", "no_stuck_runs").description
    watching.gate.touch()
    watching.start_worker()
    assert watching.fleet.wait_for_run(run_id).status is STATUS.SUCCESS
    watching.ticks_until(lambda: watching.verdict("runs", "no_stuck_runs") == "ok")


def test_a_run_of_a_frozen_worker_is_reported_when_nobody_is_left_to_rescue_it(
    watching: Watching,
):
    worker = watching.start_worker()
    run_id = watching.launch("waiting")
    started(watching, run_id)
    worker.send_signal(signal.SIGSTOP)
    try:
        tick_until_acted(watching, run_id, "report:silent_worker:0")
        assert said(watching, run_id, "is silent for") == 1
        assert said(watching, run_id, "any one rescues what a silent one holds") == 1
    finally:
        worker.send_signal(signal.SIGCONT)


def test_a_run_that_nobody_executes_is_acted_on_by_policy_when_monitoring_is_off(make_watching):
    with make_watching(environment={"STUCK_POLICY": "resume"}, config=NO_MONITORING) as watching:
        worker = watching.start_worker()
        run_id = watching.launch("waiting")
        started(watching, run_id)
        worker.kill()
        worker.wait(20)
        rescuer = watching.start_worker(queues=["elsewhere"])
        tick_until_acted(watching, run_id, "resume:no_process:0")
        assert (
            said(watching, run_id, "This run is stuck: It is STARTED and nobody executes it") == 1
        )
        assert watching.instance.count_resume_run_attempts(run_id) == 1
        watching.gate.touch()
        watching.start_worker()
        run = watching.fleet.wait_for_run(run_id)
        assert run.status is STATUS.FAILURE  # its step was lost, and has no retry policy
        assert said(watching, run_id, "Resuming on taskiq workers") == 1
        assert watching.fleet.stop_worker(rescuer) == 0


def test_a_suspended_run_is_counted_and_left_alone_until_it_is_resumed(make_watching):
    """It has no process on purpose: what its worker leaves when it dies is nobody's to take up."""
    with make_watching(environment={"STUCK_POLICY": "resume"}, config=NO_MONITORING) as watching:
        worker = watching.start_worker()
        run_id = watching.launch("waiting")
        started(watching, run_id)
        watching.instance.report_dagster_event(event("RUN_SUSPENDED", "waiting"), run_id)
        worker.kill()
        worker.wait(20)
        rescuer = watching.start_worker()
        lost = lambda: readings.fetch(watching.fleet.broker, run_task_id(run_id, 0))  # noqa: E731
        watching.fleet.wait_for(lambda: lost().state is State.LOST, "its record to be lost")
        stuck_after_s = run_health.GONE_FOR_LEASES * watching.fleet.settings.lease_s
        ended_ms = lost().ended_at_ms
        now_ms = lambda: readings.server_time_ms(watching.fleet.broker)  # noqa: E731
        long_enough = lambda: now_ms() > ended_ms + 1000 * stuck_after_s + 2000  # noqa: E731
        watching.fleet.wait_for(long_enough, "others to be stuck by then")
        assert "Stuck: 0 runs." in watching.tick(SENSOR).skip_reason
        watching.tick()
        assert watching.verdict("runs", "no_stuck_runs") == "ok"
        assert "1 SUSPENDED" in watching.check("runs", "no_stuck_runs").description
        assert watching.instance.get_run_by_id(run_id).status is STATUS.SUSPENDED
        assert watching.instance.count_resume_run_attempts(run_id) == 0
        watching.instance.report_dagster_event(event("RUN_RESUMED", "waiting"), run_id)
        assert watching.instance.get_run_by_id(run_id).status is STATUS.STARTED
        tick_until_acted(watching, run_id, "resume:no_process:0")
        assert watching.fleet.wait_for_run(run_id).is_finished
        assert watching.fleet.stop_worker(rescuer) == 0


def test_a_suspended_run_that_is_handed_out_is_refused(watching: Watching):
    run_id = watching.launch("waiting")
    watching.instance.report_dagster_event(event("RUN_SUSPENDED", "waiting"), run_id)
    watching.start_worker()
    record = lambda: readings.fetch(watching.fleet.broker, run_task_id(run_id, 0))  # noqa: E731
    watching.fleet.wait_for(lambda: record().state is State.REFUSED, "it to be refused")
    assert "it is executed when it is resumed" in record().detail["reason"]
    assert watching.instance.get_run_by_id(run_id).status is STATUS.SUSPENDED
    assert not said(watching, run_id, "STEP_START")


def test_what_run_monitoring_resumes_is_left_to_it(make_watching):
    config = {"run_monitoring": {"enabled": True, "start_timeout_seconds": 31_536_000}}
    with make_watching(environment={"STUCK_POLICY": "resume"}, config=config) as watching:
        worker = watching.start_worker()
        run_id = watching.launch("waiting")
        started(watching, run_id)
        worker.kill()
        worker.wait(20)
        watching.start_worker(queues=["elsewhere"])
        tick_until_acted(watching, run_id, "report:no_process:0")
        assert watching.instance.count_resume_run_attempts(run_id) == 0


def test_a_started_run_without_a_record_is_stuck_only_in_an_old_namespace(watching: Watching):
    run_id = watching.launch("waiting")
    client, keys = watching.fleet.broker.client, watching.fleet.broker.keys
    client.delete(keys.name("record", run_task_id(run_id, 0)), keys.name("run", run_id))
    client.delete(keys.name("waiting", "default", "run"))
    run = watching.instance.get_run_by_id(run_id)
    watching.instance.report_dagster_event(dg.DagsterEvent("PIPELINE_START", run.job_name), run_id)
    one = run_health._Open(watching.instance.get_run_by_id(run_id), 3600.0)
    client.set(keys.name("born"), int(time.time() * 1000))
    assert list(looking_at(watching, one)) == []
    client.set(keys.name("born"), int((time.time() - 600) * 1000))
    tick_until_acted(watching, run_id, "report:no_process:0")
    assert said(watching, run_id, "the broker has no record") == 1


def test_a_stamp_from_the_future_hides_no_run_that_nobody_executes(watching: Watching):
    """Whoever wrote it has a clock that is ahead: nobody could be found stuck for an hour."""
    run_id = watching.launch("waiting")
    client, keys = watching.fleet.broker.client, watching.fleet.broker.keys
    client.delete(keys.name("record", run_task_id(run_id, 0)), keys.name("run", run_id))
    client.set(keys.name("born"), int((time.time() - 600) * 1000))
    run = watching.instance.get_run_by_id(run_id)
    watching.instance.report_dagster_event(
        dg.DagsterEvent("PIPELINE_START", run.job_name), run_id, timestamp=time.time() + 3600
    )
    (record,) = watching.instance.get_run_records(dg.RunsFilter(run_ids=[run_id]))
    assert record.update_timestamp.timestamp() > time.time() + 3000
    (found,) = looking_at(watching, run_health._open_for(record, time.time()))
    assert found.cause is run_health.Cause.NO_PROCESS


def looking_at(watching: Watching, one):
    looking = run_health._Looking(
        watching.instance, watching.fleet.broker, watching.fleet.snapshot(), None
    )
    return list(looking.stuck([one]))


def test_a_step_in_progress_that_the_broker_knows_nothing_of_is_seen(
    watching: Watching, monkeypatch
):
    monkeypatch.setattr(run_health, "_QUIET_S", 0.0)
    watching.start_worker()
    run_id = watching.launch("waiting")
    started(watching, run_id)
    broker = watching.fleet.broker

    def stuck():
        return run_health.read_run_health(
            watching.instance, broker, watching.fleet.snapshot()
        ).stuck

    assert stuck() == []
    step = step_task_id(run_id, "waits", 1)
    broker.client.srem(broker.keys.name("run", run_id), step)
    # A task of the user's own is no step of the run.
    broker.client.sadd(broker.keys.name("run", run_id), "0123456789abcdef")
    (found,) = stuck()
    assert found.cause is run_health.Cause.LOST_STEP
    assert found.run.run_id == run_id
    assert "Step 'waits' is in progress by its log" in found.sentence
