"""What the fleet page shows, made of one reading of the broker; pure, to be tried without one.

Invariant: times are moments on the broker's clock and not ages, so that a row whose truth has not
changed is the same row: who follows gets what changed and nothing else.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...broker.dead_letters import DeadLetter
from ...config.settings import TaskiqSettings
from ...health.findings import Finding, watched_queues, worst
from ...health.snapshot import HeldReading, QueueReading, Snapshot, WorkerReading
from ...version import __version__
from ...vocabulary.log_actions import of_task
from ...vocabulary.masking import masked
from .history import QueueHistory

#: Of the shape of ``/api/fleet``: another number says that fields changed their meaning or left.
API_VERSION = 1
#: Queues that are shown at once.
MOST_QUEUES = 500

Row = Mapping[str, Any]
#: Rows by their id, in the order in which they are shown first.
Section = Mapping[str, Row]
SECTIONS = ("findings", "queues", "workers", "running", "waiting", "dead_letters", "lost_workers")


@dataclass(frozen=True)
class WaitingMessage:
    """One message that waits.

    Args:
        task_id: The message.
        kind: What it asks for.
        queue: Where it waits.
        since_ms: Since when, on the broker's clock.
    """

    task_id: str
    kind: str
    queue: str
    since_ms: int


@dataclass(frozen=True)
class FleetReading:
    """What one look at the broker saw.

    Args:
        snapshot: Queues, workers and server.
        findings: The verdicts of the health rules.
        settings: The deployment, with the objectives that it judges by.
        waiting: What waits, the longest-waiting of each queue and kind.
        dead_letters: The newest dead letters.
        jobs: The job of each message whose job is known.
        history: How each queue went.
    """

    snapshot: Snapshot
    findings: Sequence[Finding]
    settings: TaskiqSettings
    waiting: Sequence[WaitingMessage] = ()
    dead_letters: Sequence[DeadLetter] = ()
    jobs: Mapping[str, str] = field(default_factory=dict)
    history: Mapping[str, QueueHistory] = field(default_factory=dict)


@dataclass(frozen=True)
class FleetState:
    """What the page shows at one moment.

    Args:
        head: What is said of the whole: broker, verdict, when it was read, why it is old.
        sections: Rows of each section, by id.
    """

    head: Row
    sections: Mapping[str, Section]

    def as_data(self) -> dict[str, Any]:
        """Return it as ``/api/fleet`` answers."""
        rows = {name: list(section.values()) for name, section in self.sections.items()}
        return {**self.head, **rows}

    def since(self, before: "FleetState | None") -> dict[str, Any]:
        """Return what changed since another state, or all when there is none."""
        said: dict[str, Any] = {"head": self.head, "rows": {}, "gone": {}}
        for name, section in self.sections.items():
            known = {} if before is None else before.sections.get(name, {})
            if changed := {key: row for key, row in section.items() if known.get(key) != row}:
                said["rows"][name] = changed
            if gone := [key for key in known if key not in section]:
                said["gone"][name] = gone
        return said


def fleet_state(reading: FleetReading, links: Mapping[str, str]) -> FleetState:
    """Return what the page shows.

    Args:
        reading: What was read.
        links: Where else to look: ``ui`` is Dagster's UI, ``assets`` the path of the kit's there.
    """
    snapshot, server = reading.snapshot, reading.snapshot.server
    head = {
        "api": API_VERSION,
        "namespace": reading.settings.namespace,
        "release": __version__,
        "taken_at_ms": snapshot.taken_at_ms,
        "severity": worst(reading.findings).value,
        "away": None,
        "links": dict(links),
        "broker": {
            "version": server.version,
            "latency_ms": round(server.latency_s * 1000, 2),
            "used_memory_bytes": server.used_memory_bytes,
            "max_memory_bytes": server.max_memory_bytes or None,
            "clients": server.clients,
            "append_only": server.append_only,
            "eviction_policy": server.eviction_policy,
        },
        "totals": {
            "backlog": sum(queue.backlog for queue in snapshot.queues),
            "running": sum(queue.running for queue in snapshot.queues),
            "workers": len(snapshot.live_workers),
            "dead_letters": snapshot.dead_letters,
        },
    }
    sections: dict[str, Section] = {
        "findings": {f"{f.subject} {f.check}": _finding(f) for f in _worst_first(reading.findings)},
        "queues": {queue.name: _queue(queue, reading) for queue in _shown(snapshot)},
        "workers": {w.card.worker_id: _worker(w, snapshot) for w in snapshot.workers},
        "running": {
            held.task_id: _running(held, worker, reading)
            for worker in snapshot.workers
            for held in worker.held
        },
        "waiting": {each.task_id: _waiting(each, reading) for each in reading.waiting},
        "dead_letters": {each.entry_id: _dead_letter(each) for each in reading.dead_letters},
        "lost_workers": {
            each.worker_id: {
                "worker_id": each.worker_id,
                "host": each.host,
                "at_ms": _moment_ms(snapshot, each.ago_s),
            }
            for each in snapshot.lost_workers
        },
    }
    return FleetState(head, sections)


def away(last: FleetState | None, why: str, settings: TaskiqSettings) -> FleetState:
    """Return what was known last, with why nothing newer is known."""
    if last is None:
        empty: dict[str, Section] = {name: {} for name in SECTIONS}
        head = {
            "api": API_VERSION, "namespace": settings.namespace, "release": __version__,
            "taken_at_ms": None, "links": {}, "broker": {}, "totals": {},
        }  # fmt: skip
        return FleetState({**head, "severity": "error", "away": masked(why)}, empty)
    return FleetState({**last.head, "severity": "error", "away": masked(why)}, last.sections)


def _shown(snapshot: Snapshot) -> Sequence[QueueReading]:
    """Return the queues by name; where there are very many, those in which something happens."""
    if len(snapshot.queues) <= MOST_QUEUES:
        return snapshot.queues
    busiest = sorted(snapshot.queues, key=lambda q: (-q.backlog - q.running, not q.paused, q.name))
    return sorted(busiest[:MOST_QUEUES], key=lambda queue: queue.name)


def _worst_first(findings: Sequence[Finding]) -> Sequence[Finding]:
    return sorted((each for each in findings if not each.ok), key=lambda f: -f.severity.rank)


def _finding(finding: Finding) -> Row:
    return {
        "subject": finding.subject,
        "check": finding.check,
        "severity": finding.severity.value,
        "sentence": masked(finding.sentence),
        "remedy": masked(finding.remedy),
    }


def _moment_ms(snapshot: Snapshot, ago_s: float | None) -> int | None:
    return None if ago_s is None else round(snapshot.taken_at_ms - ago_s * 1000)


def _queue(queue: QueueReading, reading: FleetReading) -> Row:
    promised = reading.settings.objective(queue.name)
    history = reading.history.get(queue.name, QueueHistory())
    return {
        "name": queue.name,
        "backlog": queue.backlog,
        "waiting": dict(queue.waiting),
        "oldest_waiting_at_ms": _moment_ms(reading.snapshot, queue.oldest_waiting_s),
        "declared": queue.name in watched_queues(reading.settings),
        "objective_s": promised.slo_s,
        "backlog_warn": promised.backlog_warn,
        "backlog_error": promised.backlog_error,
        "claimed": queue.claimed,
        "running": queue.running,
        "oldest_running_at_ms": _moment_ms(reading.snapshot, queue.oldest_running_s),
        "workers": len(reading.snapshot.workers_of(queue.name)),
        "paused": queue.paused,
        "dead_letters": queue.dead_letters,
        "in_per_min": history.per_minute("in"),
        "out_per_min": history.per_minute("out"),
        "backlog_history": list(history.backlog),
    }


def _worker(worker: WorkerReading, snapshot: Snapshot) -> Row:
    card = worker.card
    return {
        "worker_id": card.worker_id,
        "name": card.name,
        "host": card.host,
        "pid": card.pid,
        "state": worker.state,
        "trouble": masked(card.trouble),
        "queues": list(card.queues),
        "slots": card.slots,
        "busy_slots": card.busy_slots,
        "run_slots": card.run_slots,
        "busy_run_slots": card.busy_run_slots,
        "locations": {name: masked(card.modes.get(name, "")) for name in card.locations},
        "older_code": {name: masked(why) for name, why in card.stale.items()},
        "version": card.version,
        "dagster_version": card.dagster_version,
        "began_at_ms": round(card.began_s * 1000) or None,
        "heard_at_ms": _moment_ms(snapshot, worker.silent_s),
        "lease_until_ms": round(snapshot.taken_at_ms + worker.lease_left_s * 1000),
        "succeeded": card.succeeded,
        "failed": card.failed,
        "memory_bytes": card.memory_bytes or None,
        "busy_cpus": card.busy_cpus,
    }


def _about(task_id: str, kind: str, jobs: Mapping[str, str]) -> dict[str, Any]:
    """Return what is known of any message."""
    said = of_task(task_id)
    return {
        "task_id": task_id,
        "kind": kind,
        "job": jobs.get(task_id) or None,
        **{name: said.get(name) for name in ("run_id", "step_key", "attempt")},
    }


def _running(held: HeldReading, worker: WorkerReading, reading: FleetReading) -> Row:
    used = worker.card.using.get(held.task_id)
    return {
        **_about(held.task_id, held.kind, reading.jobs),
        "queue": held.queue,
        "cpu_s": used.cpu_s if used else None,
        "memory_bytes": used.memory_bytes if used else None,
        # What a silent worker does nobody knows: it was in this state when it was last heard of.
        "state": held.state if worker.live else "unknown",
        "worker_id": worker.card.worker_id,
        "worker": worker.card.name,
        "host": worker.card.host,
        "since_ms": _moment_ms(reading.snapshot, held.since_s),
    }


def _waiting(message: WaitingMessage, reading: FleetReading) -> Row:
    return {
        **_about(message.task_id, message.kind, reading.jobs),
        "queue": message.queue,
        "since_ms": message.since_ms,
    }


def _dead_letter(letter: DeadLetter) -> Row:
    return {
        "entry_id": letter.entry_id,
        "task_id": letter.task_id,
        "queue": letter.queue,
        "kind": letter.kind,
        "run_id": letter.run_id or None,
        "reason": masked(letter.reason)[:500],
        "died_at_ms": letter.died_at_ms,
    }
