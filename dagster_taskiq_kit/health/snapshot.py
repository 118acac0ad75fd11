"""One consistent reading of queues and workers; the only code that reads health.

Invariant: all numbers are of one moment on the server's clock, read in one round trip, in time
proportional to queues and workers, never to the backlog.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..broker.connection import SyncConnection
from ..broker.scripts import Call
from ..broker.worker_cards import WorkerCard


@dataclass(frozen=True)
class QueueReading:
    """One queue at one moment.

    Args:
        name: The queue.
        waiting: Messages that wait, by kind.
        oldest_waiting_s: How long the longest-waiting one has waited; None when none waits.
        claimed: Messages that a worker has taken and not begun.
        running: Messages that execute.
        oldest_running_s: How long the longest-running one has run; None when none runs.
    """

    name: str
    waiting: Mapping[str, int]
    oldest_waiting_s: float | None
    claimed: int
    running: int
    oldest_running_s: float | None

    @property
    def backlog(self) -> int:
        """All messages that wait."""
        return sum(self.waiting.values())


@dataclass(frozen=True)
class WorkerReading:
    """One worker at one moment.

    Args:
        card: What it said of itself at its last renewal.
        lease_left_s: How long its lease is still good; negative when it has expired.
        held: Task ids that the broker thinks it holds.
    """

    card: WorkerCard
    lease_left_s: float
    held: Sequence[str]

    @property
    def live(self) -> bool:
        """Whether its lease is good."""
        return self.lease_left_s > 0


@dataclass(frozen=True)
class Snapshot:
    """Queues and workers at one moment.

    Args:
        taken_at_ms: The server's clock.
        queues: Every queue that was ever used or is served, by name.
        workers: Every worker whose card is kept, by name.
    """

    taken_at_ms: int
    queues: Sequence[QueueReading]
    workers: Sequence[WorkerReading]

    def servers_of(self, queue: str) -> Sequence[WorkerReading]:
        """Return the live workers that take work from a queue."""
        return [worker for worker in self.workers if worker.live and queue in worker.card.queues]


def read_snapshot(connection: SyncConnection, give_up_s: float | None = None) -> Snapshot:
    """Read queues and workers.

    Raises:
        BrokerUnavailable: No answer within ``give_up_s``.
    """
    return connection.run(Call("snapshot", [], _read), give_up_s)


def _read(answer: bytes) -> Snapshot:
    raw = json.loads(answer)
    now_ms = int(raw["now_ms"])
    workers = [_worker(entry, now_ms) for entry in (raw["workers"] if raw["worker_count"] else [])]
    queues = {
        entry["name"]: _queue(entry, now_ms)
        for entry in (raw["queues"] if raw["queue_count"] else [])
    }
    for worker in workers:
        for name in worker.card.queues:
            queues.setdefault(name, QueueReading(name, {}, None, 0, 0, None))
    return Snapshot(
        now_ms,
        [queues[name] for name in sorted(queues)],
        sorted(workers, key=lambda worker: worker.card.name),
    )


def _worker(entry: Mapping[str, Any], now_ms: int) -> WorkerReading:
    return WorkerReading(
        WorkerCard.from_json(entry["card"]),
        (entry["lease_until_ms"] - now_ms) / 1000,
        sorted(entry["held"]) if isinstance(entry["held"], list) else [],
    )


def _queue(entry: Mapping[str, Any], now_ms: int) -> QueueReading:
    def since_s(stamp: str) -> float | None:
        return max(0.0, (now_ms - entry[stamp]) / 1000) if entry.get(stamp) else None

    return QueueReading(
        entry["name"],
        {kind: int(count) for kind, count in entry["waiting"].items()},
        since_s("oldest_at_ms"),
        int(entry["claimed"]),
        int(entry["running"]),
        since_s("oldest_running_at_ms"),
    )
