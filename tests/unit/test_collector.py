"""From a reading to metrics, and to the number of workers wanted; no server is needed."""

import dataclasses
import sys

import pytest

from dagster_taskiq_kit.broker.buckets import BUCKETS
from dagster_taskiq_kit.broker.histograms import Histogram
from dagster_taskiq_kit.broker.worker_cards import WorkerCard
from dagster_taskiq_kit.config.settings import QueueObjective, TaskiqSettings
from dagster_taskiq_kit.exporter import sources
from dagster_taskiq_kit.exporter.collector import OTHER, BrokerReading, collect
from dagster_taskiq_kit.exporter.families import Families
from dagster_taskiq_kit.health.rules import judge
from dagster_taskiq_kit.health.scaling import desired_slots, desired_workers
from dagster_taskiq_kit.health.snapshot import (
    HeldReading,
    QueueReading,
    ServerReading,
    Snapshot,
    WorkerReading,
)

SERVER = ServerReading("Valkey 9", 0.001)


def worker(*, queues=("q",), slots=4, run_slots=2, held=0, state="alive", kind="step"):
    card = WorkerCard("w-1", "w", "host", 1, list(queues), slots, run_slots, ["code"], state)
    names = [f"{kind}:r:{n}:1" for n in range(held)]
    return WorkerReading(card, 10.0, held=[HeldReading(n, "running", "q", 1.0) for n in names])


def snapshot(queue: QueueReading, *workers: WorkerReading) -> Snapshot:
    return Snapshot(1_000_000, [queue], workers, SERVER)


def waiting(count: int, oldest_s: float, kind="step", *, paused=False) -> QueueReading:
    return QueueReading("q", {kind: count}, {kind: oldest_s} if count else {}, paused=paused)


@pytest.mark.parametrize(
    ("queue", "held", "slots", "workers"),
    [
        (waiting(0, 0), 0, 0, 1),  # min_workers
        (waiting(0, 0), 3, 3, 1),
        (waiting(1, 0), 0, 1, 1),  # something waits: one slot at once
        (waiting(100, 0), 4, 4, 1),  # a young backlog asks for nothing more
        (waiting(100, 6), 4, 14, 4),  # a tenth of the objective used up: a tenth of it
        (waiting(100, 60), 4, 104, 26),
        (waiting(100, 6000), 4, 104, 26),
        (waiting(100, 6000, paused=True), 4, 4, 1),
    ],
)
def test_demand_grows_with_how_much_of_the_objective_is_used_up(queue, held, slots, workers):
    found = snapshot(queue, worker(held=held))
    promised = QueueObjective(slo_s=60)
    assert desired_slots(found, queue, promised, "step") == slots
    assert desired_workers(found, queue, promised, "step") == workers


def test_without_any_worker_one_is_wanted_as_soon_as_something_waits():
    promised = QueueObjective(slo_s=60, min_workers=0)
    assert desired_workers(snapshot(waiting(0, 0)), waiting(0, 0), promised, "step") == 0
    assert desired_workers(snapshot(waiting(500, 900)), waiting(500, 900), promised, "step") == 1
    # A draining one has no room, and one with slots for runs only has none for steps.
    for useless in (worker(state="draining"), worker(slots=0)):
        found = snapshot(waiting(5, 900), useless)
        assert desired_workers(found, waiting(5, 900), promised, "step") == 1


def test_runs_ask_for_run_slots():
    queue = waiting(10, 60, "run")
    found = snapshot(queue, worker())
    assert desired_slots(found, queue, QueueObjective(slo_s=60), "run") == 10
    assert desired_workers(found, queue, QueueObjective(slo_s=60), "run") == 5


def samples(reading: BrokerReading, **options) -> dict:
    return {
        (sample.name.removeprefix("dagster_taskiq_"), *sorted(sample.labels.items())): sample.value
        for family in collect(reading, **options)
        for sample in family.samples
    }


def many_queues(count: int) -> BrokerReading:
    queues = [
        QueueReading(
            f"q-{n:03}", {"step": 1}, {"step": float(n)}, dead_letters=1, first_used_ms=n + 1
        )
        for n in range(count)
    ]
    counters = {("submitted", queue.name, "step"): 2 for queue in queues}
    histograms = {
        ("wait", queue.name, "step"): Histogram([1] + [0] * len(BUCKETS["wait"].bounds), 0.5)
        for queue in queues
    }
    settings = TaskiqSettings(queues={"q-149": QueueObjective(slo_s=9)})
    found = dataclasses.replace(
        Snapshot(1_000_000, queues, [worker(queues=["q-148"])], SERVER), counters=counters
    )
    return BrokerReading(found, histograms, judge(found, settings), settings)


def test_queues_beyond_the_limit_are_folded_and_nothing_is_lost():
    found = samples(many_queues(150), most_queues=10)
    names = {dict(key[1:])["queue"] for key in found if "queue" in dict(key[1:])}
    assert len(names) == 11
    # Declared ones and those that were used first have series of their own.
    assert {"default", "q-149", "q-000", "q-007", OTHER} <= names
    total = sum(v for k, v in found.items() if k[0] == "messages_submitted_total")
    assert total == 300
    waits = sum(v for k, v in found.items() if k[0] == "message_wait_seconds_count")
    assert waits == 150
    backlog = sum(v for k, v in found.items() if k[0] == "queue_messages")
    assert backlog == 150
    folded = ("queue_oldest_waiting_age_seconds", ("kind", "step"), ("queue", OTHER))
    assert found[folded] == 148.0
    subjects = {dict(key[1:])["subject"] for key in found if key[0] == "health_check_severity"}
    assert f"queue/{OTHER}" not in subjects
    assert "queue/q-149" in subjects


def test_a_queue_that_comes_later_takes_no_series_from_another():
    before, after = many_queues(20), many_queues(20)
    newcomer = QueueReading("a-new-one", {"step": 1}, first_used_ms=500)
    later = dataclasses.replace(after.snapshot, queues=[newcomer, *after.snapshot.queues])
    after = dataclasses.replace(after, snapshot=later)
    names = lambda found: {dict(k[1:]).get("queue") for k in found}  # noqa: E731
    assert names(samples(before, most_queues=10)) == names(samples(after, most_queues=10))


def test_a_histogram_is_cumulative():
    found = samples(many_queues(1))
    labels = (("kind", "step"), ("queue", "q-000"))
    values = [v for k, v in found.items() if k[0] == "message_wait_seconds_bucket" and labels[1] in k
              and labels[0] in k]  # fmt: skip
    assert values == [1.0] * (len(BUCKETS["wait"].bounds) + 1)
    assert found[("message_wait_seconds_sum", *labels)] == 0.5


def test_a_sample_that_the_catalogue_does_not_know_cannot_be_made():
    families = Families()
    with pytest.raises(KeyError):
        families.gauge("unheard_of", 1)
    with pytest.raises(ValueError, match="is a gauge with labels"):
        families.counter("up", 1)
    with pytest.raises(ValueError, match="is a counter with labels"):
        families.counter("messages_lost", 1, queue="q")


def test_a_source_that_hangs_is_said_to_have_failed_and_is_not_told_any_more(monkeypatch):
    now_s = [1000.0]
    monkeypatch.setattr(sources.time, "monotonic", lambda: now_s[0])
    source = sources.PeriodicSource("dagster", Families, every_s=60)
    assert source.last.families is None  # nothing was read yet
    source._last = sources.read_once("dagster", Families)
    now_s[0] += 299
    assert source.last.families is not None
    now_s[0] += 2
    assert source.last.families is None


def operations(count: int) -> int:
    """How many instructions Python executes to judge and collect so many queues, half of them served."""
    names = [f"q{number:05}" for number in range(count)]
    queues = [QueueReading(name, {"step": 1}, {"step": 1.0}, first_used_ms=1) for name in names]
    card = dataclasses.replace(worker().card, queues=names[::2])
    held = [HeldReading(f"step:r:{name}:1", "running", name, 1.0) for name in names]
    reading = Snapshot(
        1_000_000, queues, [WorkerReading(card, 10.0, held=held)], SERVER,
        counters={("submitted", name, "step"): 1 for name in names},
    )  # fmt: skip
    settings, done = TaskiqSettings(), 0

    def count_one(frame, event, _argument):
        nonlocal done
        frame.f_trace_opcodes = True
        done += event == "opcode"
        return count_one

    before = sys.gettrace()
    sys.settrace(count_one)
    try:
        findings = judge(reading, settings)
        collect(BrokerReading(reading, {}, findings, settings), most_queues=10)
    finally:
        sys.settrace(before)
    return done


def test_the_cost_of_a_scrape_grows_with_the_number_of_queues_and_no_faster():
    operations(10)  # what is made once
    few, more, many = operations(150), operations(300), operations(600)
    assert more - few > 10_000
    assert many - more < 2.1 * (more - few)  # twice as many more cost twice as much
