"""Every health rule below, at and above each of its thresholds."""

import re
from dataclasses import replace

import pytest

from dagster_taskiq_kit.broker.worker_cards import WorkerCard
from dagster_taskiq_kit.config.settings import QueueObjective, TaskiqSettings
from dagster_taskiq_kit.health.findings import Severity, summary, worst
from dagster_taskiq_kit.health.rules import RULES, judge, judge_absence
from dagster_taskiq_kit.health.snapshot import (
    HeldReading,
    LostWorker,
    QueueReading,
    ServerReading,
    Snapshot,
    WorkerReading,
)

OK, WARN, ERROR = Severity.OK, Severity.WARN, Severity.ERROR
GIB = 2**30
SETTINGS = TaskiqSettings(
    queues={
        "q": QueueObjective(slo_s=60, backlog_warn=50, backlog_error=200, redeliveries_warn=3),
        "elastic": QueueObjective(min_workers=0),
    },
    default_queue="q",
)
SERVER = ServerReading(
    version="Valkey 8.1", latency_s=0.001, used_memory_bytes=GIB, max_memory_bytes=4 * GIB,
    eviction_policy="noeviction", append_only=True, last_write_ok=True, clients=10, max_clients=100,
)  # fmt: skip
CARD = WorkerCard(
    "w-1", "w", "host-1", 7, ["q"], 2, 1, ["code"], dagster_version="1.13.27",
    storage_id="abc", storage="/storage",
)  # fmt: skip
WORKER = WorkerReading(CARD, lease_left_s=10, silent_s=5)
HELD = [HeldReading("step:r:s:1", "running", "q", 3)]


def snapshot(queue=None, workers=(WORKER,), server=SERVER, **more) -> Snapshot:
    return Snapshot(0, [queue or QueueReading("q")], list(workers), server, **more)


def verdict(subject: str, check: str, of: Snapshot, settings: TaskiqSettings = SETTINGS):
    (found,) = [f for f in judge(of, settings) if (f.subject, f.check) == (subject, check)]
    assert found.ok == (found.remedy == "")
    return found.severity


def queue(**fields) -> Snapshot:
    return snapshot(QueueReading("q", **fields))


def worker(**fields) -> Snapshot:
    card_fields = {k: v for k, v in fields.items() if hasattr(CARD, k)}
    rest = {k: v for k, v in fields.items() if k not in card_fields}
    return snapshot(workers=[replace(WORKER, card=replace(CARD, **card_fields), **rest)])


def server(**fields) -> Snapshot:
    return snapshot(server=replace(SERVER, **fields))


def waiting(age_s: float) -> Snapshot:
    return queue(waiting={"step": 1}, oldest_waiting_by_kind_s={"step": age_s})


def two_workers(**second) -> Snapshot:
    other = replace(CARD, **{"worker_id": "v-1", "host": "host-2", **second})
    return snapshot(workers=[WORKER, replace(WORKER, card=other)])


CASES = [
    ("redis", "reachable", server(latency_s=0.25), OK),
    ("redis", "reachable", server(latency_s=0.251), WARN),
    ("redis", "durability", server(), OK),
    ("redis", "durability", server(append_only=False), WARN),
    ("redis", "durability", server(append_only=None), WARN),
    ("redis", "durability", server(eviction_policy="allkeys-lru"), ERROR),
    ("redis", "durability", server(last_write_ok=False), ERROR),
    ("redis", "memory", server(used_memory_bytes=3 * GIB), OK),
    ("redis", "memory", server(used_memory_bytes=3 * GIB + 1), WARN),
    ("redis", "memory", server(used_memory_bytes=int(3.6 * GIB)), WARN),
    ("redis", "memory", server(used_memory_bytes=int(3.61 * GIB)), ERROR),
    ("redis", "memory", server(max_memory_bytes=0, system_memory_bytes=2 * GIB), OK),
    ("redis", "memory", server(max_memory_bytes=0, system_memory_bytes=GIB), ERROR),
    ("redis", "memory", server(used_memory_bytes=None), WARN),
    ("redis", "memory", server(clients=90), OK),
    ("redis", "memory", server(clients=91), WARN),
    ("queue/q", "oldest_waiting_age", queue(), OK),
    ("queue/q", "oldest_waiting_age", waiting(60), OK),
    ("queue/q", "oldest_waiting_age", waiting(60.1), WARN),
    ("queue/q", "oldest_waiting_age", waiting(300), WARN),
    ("queue/q", "oldest_waiting_age", waiting(300.1), ERROR),
    ("queue/q", "backlog", queue(waiting={"step": 25, "run": 25}), OK),
    ("queue/q", "backlog", queue(waiting={"step": 26, "run": 25}), WARN),
    ("queue/q", "backlog", queue(waiting={"task": 200}), WARN),
    ("queue/q", "backlog", queue(waiting={"task": 201}), ERROR),
    ("queue/q", "has_live_worker", queue(), OK),
    ("queue/q", "has_live_worker", queue(paused=True), WARN),
    ("queue/q", "has_live_worker", worker(lease_left_s=0), ERROR),
    ("queue/q", "has_live_worker", worker(state="draining"), ERROR),
    ("queue/q", "has_live_worker", worker(queues=["other"]), ERROR),
    ("queue/q", "has_live_worker",
     snapshot(QueueReading("q", waiting={"step": 1}),
              [replace(WORKER, card=replace(CARD, slots=0))]), ERROR),
    ("queue/q", "has_live_worker",
     snapshot(QueueReading("q", waiting={"run": 1}),
              [replace(WORKER, card=replace(CARD, slots=0))]), OK),
    ("queue/elastic", "has_live_worker", queue(), OK),
    ("queue/elastic", "has_live_worker",
     snapshot(QueueReading("elastic", waiting={"step": 1})), ERROR),
    ("queue/adhoc", "has_live_worker", snapshot(QueueReading("adhoc")), OK),
    ("queue/adhoc", "has_live_worker",
     snapshot(QueueReading("adhoc", waiting={"run": 1})), ERROR),
    ("queue/q", "redeliveries", queue(troubled=2), OK),
    ("queue/q", "redeliveries", queue(troubled=3), WARN),
    ("queue/q", "dead_letters", queue(dead_letters=0), OK),
    ("queue/q", "dead_letters", queue(dead_letters=1), WARN),
    ("workers", "heartbeats", snapshot(), OK),
    ("workers", "heartbeats", worker(lease_left_s=-1), WARN),
    ("workers", "heartbeats", worker(lease_left_s=-1, held=HELD), ERROR),
    ("workers", "heartbeats", worker(lease_left_s=1, held=HELD), OK),
    ("workers", "heartbeats", snapshot(lost_workers=[LostWorker("x", "h", 599)]), WARN),
    ("workers", "heartbeats", snapshot(lost_workers=[LostWorker("x", "h", 600)]), OK),
    ("workers", "code_loaded", worker(), OK),
    ("workers", "code_loaded", worker(state="unready", trouble="x: NameError"), ERROR),
    ("workers", "code_fresh", worker(), OK),
    ("workers", "code_fresh", worker(stale={"etl": "1 file changed"}), WARN),
    ("queue/q", "has_live_worker", worker(state="unready"), ERROR),
    ("workers", "slots_free", worker(busy_slots=2, busy_run_slots=1), OK),
    ("workers", "slots_free", queue(waiting={"step": 1}), OK),
    ("workers", "version_skew", two_workers(), OK),
    ("workers", "version_skew", two_workers(version="99"), WARN),
    ("workers", "version_skew", two_workers(dagster_version="1.13.1"), WARN),
    ("workers", "version_skew", worker(clock_skew_s=-5.0), OK),
    ("workers", "version_skew", worker(clock_skew_s=-5.1), WARN),
    ("workers", "other_queues", queue(waiting={"task": 201}), OK),
    ("workers", "other_queues", snapshot(QueueReading("adhoc")), OK),
    ("workers", "other_queues", snapshot(QueueReading("adhoc", dead_letters=1)), WARN),
    ("workers", "other_queues", snapshot(QueueReading("adhoc", waiting={"run": 1})), ERROR),
    ("workers", "shared_storage", two_workers(), OK),
    ("workers", "shared_storage", two_workers(storage_id="xyz"), ERROR),
    ("workers", "shared_storage", two_workers(storage_id="", storage="/x: Permission denied"),
     ERROR),
]  # fmt: skip


@pytest.mark.parametrize(("subject", "check", "of", "severity"), CASES)
def test_a_rule_at_its_thresholds(subject, check, of, severity):
    assert verdict(subject, check, of) is severity


@pytest.mark.parametrize(("kind", "busy"), [("step", "busy_slots"), ("run", "busy_run_slots")])
def test_no_free_slot_is_a_warning_only_when_something_waits_for_one(kind, busy):
    full = replace(WORKER, card=replace(CARD, **{busy: 2}))
    some = QueueReading("q", waiting={kind: 1})
    assert verdict("workers", "slots_free", snapshot(some, [full])) is WARN
    assert verdict("workers", "slots_free", snapshot(some, [])) is WARN
    other = QueueReading("q", waiting={"run" if kind == "step" else "step": 1})
    assert verdict("workers", "slots_free", snapshot(other, [full])) is OK


def test_shared_storage_is_not_demanded_when_the_setting_is_off():
    settings = SETTINGS.model_copy(update={"shared_storage": False})
    assert verdict("workers", "shared_storage", two_workers(storage_id="xyz"), settings) is OK


def test_every_rule_is_listed_judged_and_tried_above_its_threshold():
    listed = {(k, name) for k, names in RULES.items() for name in names if k != "runs"}
    judged = {(f.subject.partition("/")[0], f.check) for f in judge(snapshot(), SETTINGS)}
    assert listed == judged
    failing = {(s.partition("/")[0], c) for s, c, _, severity in CASES if severity is not OK}
    assert listed - failing == {("workers", "slots_free")}  # has a test of its own


def test_an_absent_broker_is_one_failed_check_that_says_what_is_stale():
    (finding,) = judge_absence("Broker redis://h: no answer.")
    assert (finding.check, finding.severity) == ("reachable", ERROR)
    assert "stale" in finding.remedy


def test_the_summary_names_the_worst_first():
    found = judge(server(append_only=False, used_memory_bytes=4 * GIB), SETTINGS)
    assert worst(found) is ERROR
    assert summary(found).startswith(
        f"2 of {len(found)} checks fail: ERROR redis memory; WARN redis"
    )
    assert summary(judge(snapshot(), SETTINGS)) == f"All {len(found)} checks pass."


def test_nothing_is_counted_where_there_is_nothing():
    """With no worker, and with one that serves runs only."""
    for workers in ([], [replace(WORKER, card=replace(CARD, slots=0))]):
        found = judge(snapshot(workers=workers), SETTINGS)
        (slots,) = [finding for finding in found if finding.check == "slots_free"]
        assert slots.sentence == (
            "1 of 1 run slot free." if workers else "No live worker has a slot."
        )
        for finding in found:
            assert not re.search(r"\b0 of 0\b|\b1 (slots|workers|hosts)\b", finding.sentence), (
                finding
            )
