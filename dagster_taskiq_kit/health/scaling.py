"""How many workers a queue wants: the figure that an autoscaler scales on.

Invariant: nothing is asked for because of a backlog that is young. Work at hand keeps its slots;
what waits asks for slots in proportion to how much of the queue's objective its oldest message has
used up, so that demand reaches the whole backlog when the objective does.
"""

import math
from collections.abc import Sequence

from ..config.settings import QueueObjective
from .snapshot import LANES, QueueReading, Snapshot, WorkerReading


def busy_slots(worker: WorkerReading, lane: str) -> int:
    """Return how many slots of a worker in a lane hold a message."""
    return sum(each.kind in LANES[lane] for each in worker.held)


def free_slots(workers: Sequence[WorkerReading], lane: str) -> int:
    """Return how many slots of some workers hold none."""
    return sum(max(0, worker.slots_in(lane) - busy_slots(worker, lane)) for worker in workers)


def in_flight(snapshot: Snapshot, queue: str, kinds: Sequence[str]) -> int:
    """Return how many messages of a queue workers hold, claimed and running."""
    return sum(
        each.queue == queue and each.kind in kinds for w in snapshot.workers for each in w.held
    )


def desired_slots(
    snapshot: Snapshot, queue: QueueReading, promised: QueueObjective, lane: str
) -> int:
    """Return how many slots of a lane would keep a queue within its objective."""
    kinds = LANES[lane]
    held = in_flight(snapshot, queue.name, kinds)
    waiting = queue.waiting_in(lane)
    if queue.paused or not waiting:
        return held
    urgency = min(1.0, queue.oldest_waiting_in(lane) / promised.slo_s)
    return max(1, held + math.ceil(waiting * urgency))


def desired_workers(
    snapshot: Snapshot, queue: QueueReading, promised: QueueObjective, lane: str
) -> int:
    """Return how many workers have the desired slots, if they are like those that serve the lane.

    When none serves it, that is one: its card tells how many slots a worker has.
    """
    alive = [w for w in snapshot.workers_of(queue.name, lane) if w.state == "alive"]
    demand = desired_slots(snapshot, queue, promised, lane)
    each = max((worker.slots_in(lane) for worker in alive), default=0)
    wanted = math.ceil(demand / each) if each else min(1, demand)
    return max(promised.min_workers, wanted)
