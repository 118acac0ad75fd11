"""The event log is read whole, whatever order PostgreSQL commits its rows in."""

import time
import uuid

import dagster as dg
import pytest
from dagster._core.events import DagsterEvent
from dagster._core.events.log import EventLogEntry
from dagster._core.execution.plan.objects import StepSuccessData

from dagster_taskiq_kit.orchestration.run_log import RunLog


def entry(run_id, step_key):
    event = DagsterEvent(
        event_type_value=dg.DagsterEventType.STEP_SUCCESS.value,
        job_name="job",
        step_key=step_key,
        event_specific_data=StepSuccessData(duration_ms=1.0),
    )
    return EventLogEntry(
        error_info=None,
        level=10,
        user_message="",
        run_id=run_id,
        timestamp=time.time(),
        step_key=step_key,
        job_name="job",
        dagster_event=event,
    )


@pytest.fixture
def instance(make_fleet):
    with make_fleet("postgres") as fleet:
        yield fleet.instance


def steps(events):
    return [event.step_key for event in events]


def test_a_row_that_is_committed_late_is_found_again_and_yielded_once(instance):
    run_id = str(uuid.uuid4())
    storage = instance.event_log_storage
    log = RunLog(instance, run_id)
    instance.store_event(entry(run_id, "early"))
    with storage._engine.connect().execution_options(isolation_level="READ COMMITTED") as late:
        late.execute(storage.prepare_insert_event(entry(run_id, "late")))  # an id, no commit
        instance.store_event(entry(run_id, "after"))
        assert steps(log.new_events()) == ["early", "after"]
        late.commit()
    assert steps(log.new_events()) == []  # the log's position has passed it
    assert steps(log.missed_events("another", 0)) == []
    assert steps(log.missed_events("late", 0)) == ["late"]
    assert steps(log.missed_events("late", 0)) == []


def test_more_than_one_page_is_read_and_each_event_once(instance):
    run_id = str(uuid.uuid4())
    log = RunLog(instance, run_id)
    for number in range(1_050):
        instance.store_event(entry(run_id, str(number)))
    assert steps(log.new_events()) == [str(number) for number in range(1_050)]
    assert steps(log.new_events()) == []
