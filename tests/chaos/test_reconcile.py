"""Dagster's runs and the broker's records are brought together again."""

import dagster as dg

from dagster_taskiq_kit.broker import readings
from dagster_taskiq_kit.vocabulary import messages

from .conftest import Chaos
from .test_monitoring import Puppet

STATUS = dg.DagsterRunStatus


def test_a_run_that_waits_where_nobody_serves_is_told_so_and_again_when_it_is_served(make_chaos):
    with make_chaos(settings={"unserved_note_s": 1}) as chaos:
        chaos.start_worker()
        run_id = chaos.launch("on_slow_only")
        said = lambda text: sum(text in line for line in chaos.fleet.said(run_id))  # noqa: E731
        chaos.fleet.wait_for(lambda: said("No live worker serves queue 'slow'"), "the note")
        chaos.start_executing(queues=["slow"])
        chaos.open_gates("on_slow")
        assert chaos.fleet.wait_for_run(run_id).status is STATUS.SUCCESS
        assert said("No live worker serves queue 'slow'") == 1


def test_a_run_that_waits_longer_than_the_queue_wait_timeout_fails_with_the_setting_named(
    make_chaos,
):
    with make_chaos(settings={"queue_wait_timeout_s": 1}) as chaos:
        chaos.start_worker(queues=["elsewhere"])
        run_id = chaos.launch("one")
        assert chaos.fleet.wait_for_run(run_id).status is STATUS.FAILURE
        assert any("queue_wait_timeout_s (1 s)" in line for line in chaos.fleet.said(run_id))
        chaos.start_worker()
        waiting_step = chaos.launch("on_slow_only")
        assert chaos.fleet.wait_for_run(waiting_step).status is STATUS.FAILURE
        said = chaos.fleet.instance.all_logs(waiting_step, of_type=dg.DagsterEventType.RUN_FAILURE)
        assert "queue_wait_timeout_s" in str(said[0].dagster_event.job_failure_data.error)


def test_what_is_over_in_dagster_does_not_go_on_in_the_workers(chaos: Chaos):
    chaos.start_worker()
    run_id = chaos.launch("one")
    chaos.wait_for_bodies("first")
    run = chaos.fleet.instance.get_run_by_id(run_id)
    chaos.fleet.instance.report_run_failed(run, "Somebody marked it as failed.")
    chaos.fleet.wait_for(
        lambda: not any(w.held for w in chaos.fleet.snapshot().workers), "its end", chaos.explain
    )
    assert not chaos.bodies("first", "end")
    assert chaos.fleet.instance.get_run_by_id(run_id).status is STATUS.FAILURE
    open_runs = chaos.fleet.broker.keys.name("open_runs")
    assert readings.members(chaos.fleet.broker, open_runs) == frozenset()


def test_slots_of_a_pool_that_a_dead_run_holds_are_given_back(chaos: Chaos):
    instance = chaos.fleet.instance
    instance.event_log_storage.set_concurrency_slots("narrow", 1)
    first = chaos.start_worker()
    run_id = chaos.launch("pooled")
    chaos.wait_for_bodies("in_pool")
    chaos.kill(first)
    instance.report_run_failed(instance.get_run_by_id(run_id), "Its worker is gone for good.")
    assert instance.event_log_storage.get_concurrency_info("narrow").active_slot_count == 1
    chaos.start_worker()
    chaos.open_gates("in_pool")
    second = chaos.launch("pooled")
    assert chaos.fleet.wait_for_run(second, 90).status is STATUS.SUCCESS, chaos.explain()


def test_a_run_that_kills_its_worker_before_it_begins_three_times_fails_with_the_cause(
    chaos: Chaos,
):
    run_id = chaos.launch("one")
    record = chaos.fleet.broker.keys.name("record", messages.run_task_id(run_id, 0))
    client = chaos.fleet.broker.client
    for _ in range(3):
        puppet = Puppet(chaos)
        chaos.fleet.wait_for(lambda: client.hget(record, "state") == b"queued", "the queue")
        puppet.claim()
        puppet.begin()
        puppet.renew(lease_s=0.001)
        rescuer = chaos.start_worker(queues=["elsewhere"])
        chaos.fleet.wait_for(lambda: client.hget(record, "state") != b"running", "the rescue")
        chaos.fleet.wait_for(
            lambda: client.hget(record, "state") in (b"queued", b"crashed"), "the reconciler",
            chaos.explain,
        )  # fmt: skip
        assert chaos.fleet.stop_worker(rescuer) == 0
    chaos.start_worker(queues=["elsewhere"])
    run = chaos.fleet.wait_for_run(run_id)
    assert run.status is STATUS.FAILURE
    assert any("It was handed out 3 times." in line for line in chaos.fleet.said(run_id))
