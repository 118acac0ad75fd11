"""One consistent reading of queues, workers and server; the only code that reads health.

Invariant: all numbers are of one moment on the server's clock, read in one round trip (and one more
that measures the way there), in time proportional to queues and workers, never to the backlog. Only
where the clocks differ about whether a worker lives, all is read again after a second look at it.
"""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from ..broker.connection import SyncConnection
from ..broker.doubts import still_silent
from ..broker.scripts import Call, text
from ..broker.worker_cards import WorkerCard, age_by_own_clock_s
from ..config.settings import QueueObjective

#: Which kinds of messages a lane of a worker serves.
LANES: Mapping[str, Sequence[str]] = {"run": ("run",), "step": ("step", "task")}


@dataclass(frozen=True)
class QueueReading:
    """One queue at one moment.

    Args:
        name: The queue.
        waiting: Messages that wait, by kind.
        oldest_waiting_by_kind_s: How long the longest-waiting one of each kind has waited since it
            was submitted, redeliveries included; a kind of which none waits is left out.
        claimed: Messages that a worker has taken and not begun.
        oldest_claimed_s: How long the first of those is claimed; None when there is none.
        running: Messages that execute.
        oldest_running_s: How long the longest-running one has run; None when none runs.
        troubled: Messages redelivered or lost in the last hour.
        dead_letters: Dead letters of this queue.
        paused: Whether nothing of it is handed out.
        first_used_ms: When it was first used, on the server's clock; None when it never was.
    """

    name: str
    waiting: Mapping[str, int] = field(default_factory=dict)
    oldest_waiting_by_kind_s: Mapping[str, float] = field(default_factory=dict)
    claimed: int = 0
    oldest_claimed_s: float | None = None
    running: int = 0
    oldest_running_s: float | None = None
    troubled: int = 0
    dead_letters: int = 0
    paused: bool = False
    first_used_ms: int | None = None

    @property
    def backlog(self) -> int:
        """All messages that wait."""
        return sum(self.waiting.values())

    def waiting_in(self, lane: str) -> int:
        """Return how many messages wait for a slot of a lane."""
        return sum(self.waiting.get(kind, 0) for kind in LANES[lane])

    def oldest_waiting_in(self, lane: str) -> float:
        """Return how long the longest-waiting of those waits; 0 when none does."""
        found_s = (self.oldest_waiting_by_kind_s.get(kind, 0.0) for kind in LANES[lane])
        return max(found_s, default=0.0)

    @property
    def oldest_waiting_s(self) -> float | None:
        """How long the longest-waiting message has waited; None when none waits."""
        return max(self.oldest_waiting_by_kind_s.values(), default=None)


@dataclass(frozen=True)
class HeldReading:
    """One message that a worker holds.

    Args:
        task_id: The message.
        state: ``claimed`` or ``running``.
        queue: Where it waited.
        since_s: For how long it is in that state.
    """

    task_id: str
    state: str
    queue: str
    since_s: float

    @property
    def kind(self) -> str:
        """What it asks for: ``run``, ``step`` or ``task``."""
        kind = self.task_id.partition(":")[0]
        return kind if kind in ("run", "step") else "task"


@dataclass(frozen=True)
class WorkerReading:
    """One worker at one moment.

    Args:
        card: What it said of itself at its last renewal.
        lease_left_s: How long its lease is still good; negative when it has expired.
        silent_s: How long ago that renewal was: what the card says is this old.
        held: What the broker thinks it holds.
        clock_skew_s: By how much its host's clock was ahead of the broker's.
        doubtful: Whether the broker's clock alone does not say if it lives.
    """

    card: WorkerCard
    lease_left_s: float
    silent_s: float = 0.0
    held: Sequence[HeldReading] = ()
    clock_skew_s: float = 0.0
    doubtful: bool = False

    def slots_in(self, lane: str) -> int:
        """Return how many slots it has in a lane."""
        return self.card.run_slots if lane == "run" else self.card.slots

    @property
    def live(self) -> bool:
        """Whether its lease is good."""
        return self.lease_left_s > 0

    @property
    def state(self) -> str:
        """``alive``, ``unready``, ``draining`` or ``expired``."""
        return self.card.state if self.live else "expired"


@dataclass(frozen=True)
class LostWorker:
    """A worker that was given up in the last hour.

    Args:
        worker_id: The worker.
        host: Where it ran; '' when that is not known any more.
        ago_s: How long ago that was decided.
    """

    worker_id: str
    host: str
    ago_s: float


@dataclass(frozen=True)
class ServerReading:
    """The Redis or Valkey server at one moment; None stands for what it does not tell.

    Args:
        version: Name and release.
        latency_s: How long one PING took, there and back.
        uptime_s: How long it is up.
        used_memory_bytes: Memory in use.
        max_memory_bytes: Its own limit; 0 for none.
        system_memory_bytes: Memory of its host.
        eviction_policy: ``maxmemory-policy``.
        append_only: Whether it keeps an append-only file.
        last_write_ok: Whether its last write to disk succeeded.
        clients: Connections to it.
        max_clients: How many it allows.
    """

    version: str | None
    latency_s: float
    uptime_s: int | None = None
    used_memory_bytes: int | None = None
    max_memory_bytes: int | None = None
    system_memory_bytes: int | None = None
    eviction_policy: str | None = None
    append_only: bool | None = None
    last_write_ok: bool | None = None
    clients: int | None = None
    max_clients: int | None = None


@dataclass(frozen=True)
class Snapshot:
    """Queues, workers and server at one moment.

    Args:
        taken_at_ms: The server's clock.
        queues: Every queue that was ever used, is served or is paused, by name.
        workers: Every worker that was not given up, by name.
        server: The server.
        lost_workers: Those given up in the last hour, newest first.
        objectives: What the declared queues promise, as the health sensor published it.
        judging: What else the sensor's checks go by: ``shared_storage``, ``no_progress_s``.
        counters: What ever happened: (event, queue, kind) to how often.
        dead_letters: Dead letters of all queues.
        watched_ago_s: How long ago the health sensor ticked; None when none ever did.
        namespace_age_s: How long ago the namespace was made; None when nothing was ever written.
    """

    taken_at_ms: int
    queues: Sequence[QueueReading]
    workers: Sequence[WorkerReading]
    server: ServerReading
    lost_workers: Sequence[LostWorker] = ()
    objectives: Mapping[str, QueueObjective] = field(default_factory=dict)
    judging: Mapping[str, Any] = field(default_factory=dict)
    counters: Mapping[tuple[str, str, str], int] = field(default_factory=dict)
    dead_letters: int = 0
    namespace_age_s: float | None = None
    watched_ago_s: float | None = None

    @property
    def live_workers(self) -> Sequence[WorkerReading]:
        """The workers whose lease is good."""
        return [worker for worker in self.workers if worker.live]

    def queue(self, name: str) -> QueueReading:
        """Return one queue; an empty one when it was never used."""
        return self._queues_by_name.get(name) or QueueReading(name)

    @cached_property
    def _queues_by_name(self) -> Mapping[str, QueueReading]:
        return {queue.name: queue for queue in self.queues}

    @cached_property
    def _servers_by_queue(self) -> Mapping[str, Sequence[WorkerReading]]:
        found: dict[str, list[WorkerReading]] = {}
        for worker in self.live_workers:
            for queue in dict.fromkeys(worker.card.queues):
                found.setdefault(queue, []).append(worker)
        return found

    def workers_of(self, queue: str, lane: str | None = None) -> Sequence[WorkerReading]:
        """Return the live workers that take work from a queue; those with slots in a lane only."""
        serving = self._servers_by_queue.get(queue, ())
        return [w for w in serving if lane is None or w.slots_in(lane)]

    def unserved_lanes(self, queue: QueueReading) -> Sequence[str]:
        """Return the lanes of a queue in which work waits that no live worker takes."""
        return [
            lane
            for lane in LANES
            if queue.waiting_in(lane)
            and not any(w.state != "unready" for w in self.workers_of(queue.name, lane))
        ]


def read_snapshot(connection: SyncConnection, give_up_s: float | None = None) -> Snapshot:
    """Read queues, workers and server.

    Raises:
        BrokerUnavailable: No answer within ``give_up_s``.
    """
    from .snapshot_parsing import parsed

    def timed_ping() -> float:
        began_s = time.perf_counter()
        connection.client.ping()
        return time.perf_counter() - began_s

    connection.retrying(timed_ping, give_up_s)  # connects
    latency_s = connection.retrying(timed_ping, give_up_s)
    read = Call("snapshot", [], lambda answer: parsed(json.loads(text(answer)), latency_s))
    snapshot = connection.run(read, give_up_s)
    doubted = [each.card.worker_id for each in snapshot.workers if each.doubtful]
    if not doubted:
        return snapshot
    silent = still_silent(connection, doubted)
    snapshot = connection.run(read, give_up_s)
    workers = [
        _called_silent(each) if each.card.worker_id in silent and each.doubtful else each
        for each in snapshot.workers
    ]
    return replace(snapshot, workers=workers)


def _called_silent(worker: WorkerReading) -> WorkerReading:
    """Return a worker that a second look found silent, whatever the broker's clock says of it."""
    silent_s = max(worker.silent_s, age_by_own_clock_s(worker.card) if worker.card.clock_s else 0.0)
    return replace(worker, lease_left_s=min(0.0, worker.lease_left_s), silent_s=silent_s)
