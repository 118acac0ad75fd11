"""In which order waiting steps execute, and on which worker, on a fleet."""

from pathlib import Path

import dagster as dg

from dagster_taskiq_kit.broker import readings
from dagster_taskiq_kit.broker.stream_broker import OLDEST_FIRST_EVERY
from dagster_taskiq_kit.vocabulary.messages import step_task_id

CODE = Path(__file__).parent / "code" / "order_jobs.py"


def order_by_the_rules(waiting):
    """Return step keys in the order that design 4 promises to one worker with one slot.

    Args:
        waiting: Records by step key, in the order of their submission.
    """
    left, order = dict(waiting), []
    while left:
        oldest_first = len(order) % OLDEST_FIRST_EVERY == OLDEST_FIRST_EVERY - 1
        heads = {}
        for key, record in left.items():
            heads.setdefault(record.band, key)
        if oldest_first:
            chosen = min(heads.values(), key=lambda key: (left[key].queued_at_ms, -left[key].band))
        else:
            chosen = heads[max(heads)]
        order.append(chosen)
        del left[chosen]
    return order


def records_of(site, run_id, keys):
    return {key: readings.fetch(site.fleet.broker, step_task_id(run_id, key, 1)) for key in keys}


def backlog(site, queue):
    return sum(q.backlog for q in site.fleet.snapshot().queues if q.name == queue)


def workers_of(found):
    return {record.worker for record in found.values()}


def test_freed_steps_execute_in_the_promised_order_and_the_lowest_band_does_not_starve(site):
    site.start_worker(slots=0, run_slots=2)
    lowest = site.launch("one_of_the_lowest")
    site.wait_for(lambda: backlog(site, "ordered") == 1, "the lowest to wait", lowest)
    run_id = site.launch("nineteen_priorities")
    site.wait_for(lambda: backlog(site, "ordered") == 20, "all steps to wait", run_id)
    assert site.bodies(run_id) == site.bodies(lowest) == []
    # They are submitted as they were announced, many in one millisecond.
    starting = dg.DagsterEventType.STEP_WORKER_STARTING
    submitted = [e.step_key for e in site.fleet.instance.all_logs(run_id, of_type=starting)]
    assert sorted(submitted) == [f"step_{number:02}" for number in range(1, 20)]
    waiting = {**records_of(site, lowest, ["step_00"]), **records_of(site, run_id, submitted)}
    found = [waiting[key] for key in submitted]
    assert [record.queued_at_ms for record in found] == sorted(r.queued_at_ms for r in found)
    assert [record.band for record in found] == sorted((r.band for r in found), reverse=True)

    site.start_worker(queues=["ordered"], slots=1, run_slots=0)
    for each in (lowest, run_id):
        assert site.fleet.wait_for_run(each).status is dg.DagsterRunStatus.SUCCESS

    ledger = (site.fleet.home / "ledger").read_text().splitlines()
    executed = [line.split(" ")[1] for line in ledger]
    assert executed == order_by_the_rules(waiting)
    # The same without the model, for the reader: highest first, and step_00, of the lowest band and
    # the longest-waiting of all, at the tenth claim, while ten of higher bands wait.
    bands = [waiting[key].band for key in executed]
    assert bands[:9] == [10, 9, 8, 8, 7, 7, 6, 6, 5]
    assert executed[OLDEST_FIRST_EVERY - 1] == "step_00"
    assert bands[10:] == [5, 4, 4, 3, 3, 2, 2, 1, 1, 0]


def test_a_worker_whose_only_slot_is_busy_takes_none_of_ten_messages(site):
    site.start_worker(queues=["default", "shared"], slots=1, run_slots=2)
    busy_run = site.launch("one_that_waits")
    site.wait_for(lambda: site.bodies(busy_run), "the slot to be busy", busy_run)
    (busy,) = workers_of(records_of(site, busy_run, ["keeps_its_worker_busy"]))

    run_id = site.launch("ten_that_share")
    site.wait_for(lambda: backlog(site, "shared") == 10, "ten messages to wait", run_id)
    site.start_worker(queues=["shared"], slots=1, run_slots=0)
    assert site.fleet.wait_for_run(run_id).status is dg.DagsterRunStatus.SUCCESS

    shared = records_of(site, run_id, [f"shares_{number}" for number in range(10)])
    assert all(record.deliveries == 1 for record in shared.values())
    assert len(workers_of(shared)) == 1
    assert busy not in workers_of(shared)
    site.open_gate("free")
    assert site.fleet.wait_for_run(busy_run).status is dg.DagsterRunStatus.SUCCESS
