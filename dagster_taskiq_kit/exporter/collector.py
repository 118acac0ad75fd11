"""From one reading of the broker to metrics; pure, so that it is tried without a server.

Invariant: the number of series is bounded: queues beyond a limit are folded into ``other``. Every
label set of a known queue is there from the start with zero, since ``increase()`` of a counter that
is born at 1 is empty and a first loss would alarm nobody.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..broker.histograms import Histogram, Histograms, empty
from ..config.settings import TaskiqSettings
from ..health.findings import Finding
from ..health.scaling import busy_slots, desired_slots, desired_workers, free_slots
from ..health.snapshot import LANES, HeldReading, QueueReading, Snapshot, WorkerReading
from ..vocabulary.states import Kind
from .families import Families

KINDS = tuple(kind.value for kind in Kind)
OUTCOMES = ("succeeded", "failed", "crashed", "cancelled", "refused")
WORKER_STATES = ("alive", "unready", "draining", "expired")
OTHER = "other"
MOST_QUEUES = 100

#: Metric to the event that the scripts count for it.
_COUNTED = {
    "messages_submitted": "submitted",
    "messages_started": "running",
    "messages_started_late": "late",
    "messages_lost": "lost",
    "messages_redelivered": "redelivered",
    "dead_letters": "dead",
}
_HISTOGRAMS = {
    "message_wait_seconds": "wait",
    "message_duration_seconds": "duration",
    "message_cpu_seconds": "cpu",
    "message_peak_memory_bytes": "peak_memory",
}


@dataclass(frozen=True)
class BrokerReading:
    """What one scrape reads of the broker.

    Args:
        snapshot: Queues, workers and server.
        histograms: Waits and durations.
        findings: The verdicts of the health rules.
        settings: The deployment, with the objectives that it judges by.
    """

    snapshot: Snapshot
    histograms: Histograms
    findings: Sequence[Finding]
    settings: TaskiqSettings


def absent() -> Families:
    """Return what is said while the broker does not answer."""
    families = Families()
    families.gauge("up", 0)
    return families


def collect(
    reading: BrokerReading, *, per_worker: bool = False, most_queues: int = MOST_QUEUES
) -> Families:
    """Return the metrics of a reading.

    Args:
        reading: What was read.
        per_worker: Whether to add series for each single worker.
        most_queues: Queues with series of their own; the rest is folded into ``other``.
    """
    families = Families()
    families.gauge("up", 1)
    shown = _shown_queues(reading, most_queues)
    _queues(families, reading, shown)
    _counts(families, reading, shown)
    _workers(families, reading.snapshot, shown, per_worker=per_worker)
    _server(families, reading.snapshot)
    for finding in reading.findings:
        subject, _, queue = finding.subject.partition("/")
        if not queue or shown.get(queue, OTHER) == queue:
            families.gauge(
                "health_check_severity",
                finding.severity.rank,
                subject=finding.subject if queue else subject,
                check=finding.check,
            )
    return families


def _shown_queues(reading: BrokerReading, most: int) -> Mapping[str, str]:
    """Return under which name each queue is shown: declared ones first, then the first used.

    Who has series of its own keeps them: one that came and went in ``other`` would take its counts
    with it, and the sum would jump.
    """
    snapshot, settings = reading.snapshot, reading.settings
    declared = {settings.default_queue, *settings.queues}
    used = {queue.name: queue.first_used_ms for queue in snapshot.queues}
    counted = {queue for _, queue, _ in snapshot.counters if queue}
    never = snapshot.taken_at_ms

    def rank(name: str) -> tuple[bool, int, str]:
        return (name not in declared, used.get(name) or never, name)

    ranked = sorted({*declared, *counted, *used}, key=rank)
    return {name: name if place < most else OTHER for place, name in enumerate(ranked)}


def _by_name(shown: Mapping[str, str]) -> Sequence[tuple[str, Sequence[str]]]:
    """Return each name that is shown, with the queues that stand under it."""
    members: dict[str, list[str]] = {}
    for queue, shown_as in shown.items():
        members.setdefault(shown_as, []).append(queue)
    return sorted(members.items())


def _queues(families: Families, reading: BrokerReading, shown: Mapping[str, str]) -> None:
    snapshot = reading.snapshot
    readings: Mapping[str, QueueReading] = {queue.name: queue for queue in snapshot.queues}
    held: dict[tuple[str, str], list[HeldReading]] = {}
    for each in (each for worker in snapshot.workers for each in worker.held):
        held.setdefault((shown.get(each.queue, OTHER), each.kind), []).append(each)
    for name, queues in _by_name(shown):
        members = [readings.get(each, QueueReading(each)) for each in queues]
        for kind in KINDS:
            of_kind = held.get((name, kind), [])
            states = {
                "waiting": sum(queue.waiting.get(kind, 0) for queue in members),
                "claimed": sum(each.state == "claimed" for each in of_kind),
                "running": sum(each.state == "running" for each in of_kind),
            }
            for state, count in states.items():
                families.gauge("queue_messages", count, queue=name, kind=kind, state=state)
            ages_s = {
                "queue_oldest_waiting_age_seconds": (
                    queue.oldest_waiting_by_kind_s.get(kind, 0.0) for queue in members
                ),
                "queue_oldest_running_age_seconds": (
                    each.since_s for each in of_kind if each.state == "running"
                ),
            }
            for short, found_s in ages_s.items():
                families.gauge(short, max(found_s, default=0.0), queue=name, kind=kind)
        families.gauge("queue_paused", any(queue.paused for queue in members), queue=name)
        families.gauge("dead_letter_messages", sum(q.dead_letters for q in members), queue=name)
        if name in queues:
            _objective(families, reading, readings.get(name, QueueReading(name)))


def _objective(families: Families, reading: BrokerReading, queue: QueueReading) -> None:
    snapshot, promised = reading.snapshot, reading.settings.objective(queue.name)
    alive = [w for w in snapshot.workers_of(queue.name) if w.state == "alive"]
    families.gauge("queue_slo_seconds", promised.slo_s, queue=queue.name)
    for lane in LANES:
        workers = desired_workers(snapshot, queue, promised, lane)
        families.gauge("queue_desired_workers", workers, queue=queue.name, lane=lane)
        serving = sum(worker.slots_in(lane) > 0 for worker in alive)
        families.gauge("queue_serving_workers", serving, queue=queue.name, lane=lane)
        wanted = desired_slots(snapshot, queue, promised, lane)
        families.gauge("queue_desired_slots", wanted, queue=queue.name, lane=lane)
        families.gauge("queue_free_slots", free_slots(alive, lane), queue=queue.name, lane=lane)


def _counts(families: Families, reading: BrokerReading, shown: Mapping[str, str]) -> None:
    counters = reading.snapshot.counters
    for name, members in _by_name(shown):
        for kind in KINDS:

            def count(event: str, members: Sequence[str] = members, kind: str = kind) -> int:
                return sum(counters.get((event, queue, kind), 0) for queue in members)

            for short, event in _COUNTED.items():
                families.counter(short, count(event), queue=name, kind=kind)
            for outcome in OUTCOMES:
                families.counter(
                    "messages_finished", count(outcome), queue=name, kind=kind, outcome=outcome
                )
            for short, what in _HISTOGRAMS.items():
                found = [
                    reading.histograms.get((what, each, kind), empty(what)) for each in members
                ]
                families.histogram(short, what, _together(found), queue=name, kind=kind)
    families.counter("workers_lost", counters.get(("worker_lost", "", ""), 0))


def _together(found: Sequence[Histogram]) -> Histogram:
    counts = [sum(each) for each in zip(*(one.counts for one in found), strict=True)]
    return Histogram(counts, sum(one.sum for one in found))


def _workers(
    families: Families, snapshot: Snapshot, shown: Mapping[str, str], *, per_worker: bool
) -> None:
    serving_by_name: dict[str, list[WorkerReading]] = {}
    for worker in snapshot.workers:
        for name in {shown[queue] for queue in worker.card.queues if queue in shown}:
            serving_by_name.setdefault(name, []).append(worker)
    for name, _members in _by_name(shown):
        serving = serving_by_name.get(name, [])
        for state in WORKER_STATES:
            count = sum(worker.state == state for worker in serving)
            families.gauge("workers", count, queue=name, state=state)
    for lane in LANES:
        busy = sum(busy_slots(worker, lane) for worker in snapshot.live_workers)
        free = free_slots(snapshot.live_workers, lane)
        families.gauge("worker_slots", busy, lane=lane, state="busy")
        families.gauge("worker_slots", free, lane=lane, state="free")
    live = [worker.card for worker in snapshot.live_workers]
    families.gauge("workers_memory_bytes", sum(card.memory_bytes for card in live))
    families.gauge("workers_busy_cpus", sum(card.busy_cpus for card in live))
    for worker in snapshot.workers if per_worker else ():
        card = worker.card
        families.gauge("worker_memory_bytes", card.memory_bytes, worker=card.worker_id)
        families.gauge("worker_busy_cpus", card.busy_cpus, worker=card.worker_id)
        families.gauge(
            "worker_info", 1, worker=card.worker_id, host=card.host, version=card.version,
            dagster_version=card.dagster_version,
        )  # fmt: skip
        families.gauge(
            "worker_last_heartbeat_timestamp_seconds",
            snapshot.taken_at_ms / 1000 - worker.silent_s,
            worker=card.worker_id,
        )
        for lane in LANES:
            if worker.slots_in(lane):
                families.gauge(
                    "worker_busy_slots", busy_slots(worker, lane), worker=card.worker_id, lane=lane
                )


def _server(families: Families, snapshot: Snapshot) -> None:
    server, ago_s = snapshot.server, snapshot.watched_ago_s
    reported_at_s = 0.0 if ago_s is None else snapshot.taken_at_ms / 1000 - ago_s
    families.gauge("health_report_timestamp_seconds", reported_at_s)
    families.gauge("redis_round_trip_seconds", server.latency_s)
    known: Mapping[str, int | None] = {
        "redis_memory_used_bytes": server.used_memory_bytes,
        "redis_memory_max_bytes": server.max_memory_bytes,
    }
    for short, value in known.items():
        if value is not None:
            families.gauge(short, value)
