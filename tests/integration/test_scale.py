"""Jobs of many steps: every step once, and a log that is read once, not once for each step."""

import collections
import re
from pathlib import Path

import dagster as dg
import pytest

from dagster_taskiq_kit.dagster_internals import names as internals
from dagster_taskiq_kit.vocabulary.messages import decode, step_task_id
from dagster_taskiq_kit.vocabulary.states import Kind

CODE = Path(__file__).parent / "code" / "scale_jobs.py"

#: Records that an orchestrator may read for each event of its run. One is for the reading itself;
#: the rest is for steps whose end was read before the bell rang.
READS_PER_EVENT = 1.5


def records_read(site):
    """Return how many records of a log each process has read, by pid."""
    counts = collections.Counter()
    for line in (site.fleet.home / "reads").read_text().splitlines():
        pid, count = line.split(" ")
        counts[int(pid)] += int(count)
    return counts


def orchestrators(site, run_id):
    """Return the pids of a run's orchestrators, in the order in which they had it."""
    found = re.findall(r"orchestrator pid (\d+)", "\n".join(site.fleet.said(run_id)))
    return [int(pid) for pid in found]


def events_of(site, run_id):
    return [entry for entry in site.instance.all_logs(run_id) if entry.is_dagster_event]


def assert_each_step_once(site, run_id, width):
    said = site.fleet.said(run_id)
    assert not any(", delivery 2" in line for line in said)
    assert sum(line.endswith(f" sum {sum(range(width))}") for line in said) == 1
    names = ["fan_out", *(f"passes[{number}]" for number in range(width)), "add_up"]
    assert sorted(site.bodies(run_id)) == sorted(names)


def assert_read_in_proportion(site, run_id, orchestrator):
    events = len(events_of(site, run_id))
    read = records_read(site)[orchestrator]
    assert events * 0.9 < read <= events * READS_PER_EVENT


def assert_messages_do_not_grow_with_the_fan(site, run_id):
    """What a mapped step is told of the fan is its own branch, not all of them."""
    broker = site.fleet.broker
    for number in range(80, 90):
        task_id = step_task_id(run_id, f"passes[{number}]", 1)
        payload = broker.client.hget(broker.keys.name("record", task_id), "payload")
        message = decode(task_id, Kind.STEP, payload)
        state = internals.deserialize_value(message.known_state, internals.KnownExecutionState)
        assert state.dynamic_mappings == {"fan_out": {"result": [str(number)]}}


@pytest.mark.timeout(400)
def test_a_diamond_is_done_and_its_log_is_read_in_proportion_to_its_events(site):
    site.start_worker(slots=4, run_slots=1)
    for width in (40, 250):
        run_id = site.launch(f"diamond_{width}")
        assert site.fleet.wait_for_run(run_id, 300).status is dg.DagsterRunStatus.SUCCESS
        assert_each_step_once(site, run_id, width)
        (orchestrator,) = orchestrators(site, run_id)
        assert_read_in_proportion(site, run_id, orchestrator)


def test_a_resumed_orchestrator_replays_more_than_a_thousand_events_and_goes_on(site):
    first = site.start_worker(slots=0, run_slots=1)
    site.start_worker(slots=4, run_slots=0)
    run_id = site.launch("diamond_90")
    site.wait_for(lambda: len(events_of(site, run_id)) > 1_020, "1,020 events", run_id)
    assert_messages_do_not_grow_with_the_fan(site, run_id)
    assert site.fleet.stop_worker(first) == 0
    site.start_worker(slots=0, run_slots=1)
    site.open_gate("gate")
    assert site.fleet.wait_for_run(run_id).status is dg.DagsterRunStatus.SUCCESS
    assert_each_step_once(site, run_id, 90)
    _, second = orchestrators(site, run_id)
    assert_read_in_proportion(site, run_id, second)
