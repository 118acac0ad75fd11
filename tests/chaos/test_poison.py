"""A live worker among poison goes on serving good work."""

import dagster as dg

from dagster_taskiq_kit.broker import dead_letters, readings
from dagster_taskiq_kit.vocabulary import messages

from .conftest import Chaos

STATUS = dg.DagsterRunStatus


def test_a_worker_goes_on_serving_among_poison(chaos: Chaos):
    worker = chaos.start_worker()
    broker = chaos.fleet.broker
    client, key = broker.client, broker.keys.name
    for kind in ("run", "step", "task"):
        for number, spoiled in enumerate(
            ({"state": "x"}, {"deliveries": "many"}, {"kind": "y"}, {"payload": "["}, {"queue": ""})
        ):
            task_id = f"{kind}:poison:{number}"
            sound = {
                "state": "queued", "kind": kind, "queue": "default", "band": "5", "run_id": "r",
                "deliveries": "0", "queued_at": "1", "payload": "{}", "entry": f"1-{number + 1}",
            }  # fmt: skip
            client.hset(key("record", task_id), mapping={**sound, **spoiled})
            client.zadd(key("waiting", "default", kind), {task_id: 1})
            client.xadd(
                key("stream", "default", kind, "5"), {"id": task_id, "at": "1"}, f"1-{number + 1}"
            )
        client.set(key("stream", "default", kind, "9"), "no stream")
    ((worker_id),) = [w.card.worker_id for w in chaos.fleet.snapshot().workers]
    client.xadd(key("orders", worker_id), {"order": b"\xff"})
    client.xadd(key("orders", worker_id), {"nothing": "at all"})
    client.hset(key("worker", "ghost"), "card", "{")
    client.zadd(key("workers"), {"ghost": 4e12})
    chaos.open_gates("first", "second", "third")
    run_id = chaos.launch("other_chain")
    assert chaos.fleet.wait_for_run(run_id).status is STATUS.SUCCESS, chaos.explain()
    chaos.fleet.wait_for(lambda: len(dead_letters.read_all(broker)) == 15, "fifteen dead letters")
    assert all(letter.reason for letter in dead_letters.read_all(broker))
    assert worker.poll() is None
    assert chaos.fleet.stop_worker(worker) == 0


def test_a_refusal_spends_no_retry_of_the_op(chaos: Chaos):
    chaos.start_orchestrating()
    run_id = chaos.launch("retried")
    broker, task_id = chaos.fleet.broker, messages.step_task_id(run_id, "patient", 1)
    chaos.fleet.wait_for(lambda: readings.fetch(broker, task_id), "the step's record")
    broker.client.hset(broker.keys.name("record", task_id), "payload", "[")
    chaos.start_executing()
    assert chaos.fleet.wait_for_run(run_id).status is STATUS.FAILURE
    kinds = [entry.dagster_event_type for entry in chaos.fleet.instance.all_logs(run_id)]
    assert dg.DagsterEventType.STEP_UP_FOR_RETRY not in kinds
    assert kinds.count(dg.DagsterEventType.STEP_FAILURE) == 1
    assert not chaos.bodies("patient")


def test_a_run_whose_stream_was_deleted_is_queued_again_by_the_workers(chaos: Chaos):
    chaos.start_worker(queues=["elsewhere"])
    run_id = chaos.launch("one")
    broker = chaos.fleet.broker
    stream = broker.keys.name("stream", "default", "run", "5")
    assert broker.client.delete(stream) == 1
    chaos.open_gates("first")
    chaos.start_worker()
    assert chaos.fleet.wait_for_run(run_id).status is STATUS.SUCCESS, chaos.explain()
    assert len(chaos.bodies("first")) == 1
