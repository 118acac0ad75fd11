"""How each queue went while its page was served: its rates, and its backlog of an hour.

Invariant: its size is bounded: a sample each half minute, for an hour. It is lost with the process;
what must be kept is in Prometheus.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from ...health.snapshot import Snapshot

#: Outcomes by which a message leaves a queue for good, and what puts it there.
_OUT = ("succeeded", "failed", "crashed", "cancelled", "refused")
_IN = ("submitted",)
SAMPLE_EVERY_MS = 30_000
_JITTER_MS = 1_000
_SAMPLES = 120
_RATE_OVER_MS = 60_000
#: A rate is between two looks.
_RATE_NEEDS = 2


@dataclass
class QueueHistory:
    """One queue.

    Args:
        backlog: Its backlog at each sample, the oldest first.
        counts: Counters at the looks of the last minute: moment, in, out.
    """

    backlog: deque[int] = field(default_factory=lambda: deque(maxlen=_SAMPLES))
    counts: deque[tuple[int, int, int]] = field(default_factory=deque)

    def saw(self, at_ms: int, submitted: int, ended: int) -> None:
        """Note the counters at a moment."""
        if self.counts and (self.counts[-1][0] >= at_ms or self.counts[-1][1] > submitted):
            self.counts.clear()  # the broker's clock was set, or it forgot everything
        self.counts.append((at_ms, submitted, ended))
        while self.counts[0][0] < at_ms - _RATE_OVER_MS and len(self.counts) > _RATE_NEEDS:
            self.counts.popleft()

    def per_minute(self, way: str) -> float | None:
        """Return how many came ``in`` or went ``out`` a minute; None while that is not known."""
        if len(self.counts) < _RATE_NEEDS:
            return None
        first, last = self.counts[0], self.counts[-1]
        column = 1 if way == "in" else 2
        return round((last[column] - first[column]) * 60_000 / (last[0] - first[0]), 1)


class Histories:
    """All queues."""

    def __init__(self) -> None:
        self.by_queue: dict[str, QueueHistory] = {}
        self._sampled_ms = 0

    def saw(self, snapshot: Snapshot) -> Mapping[str, QueueHistory]:
        """Note a look; returns the history of each queue that is known still."""
        at_ms = snapshot.taken_at_ms
        sums: dict[str, list[int]] = {queue.name: [0, 0] for queue in snapshot.queues}
        for (event, queue, _), count in snapshot.counters.items():
            if queue in sums:
                sums[queue][0] += count if event in _IN else 0
                sums[queue][1] += count if event in _OUT else 0
        self.by_queue = {name: self.by_queue.get(name, QueueHistory()) for name in sums}
        for name, (submitted, ended) in sums.items():
            self.by_queue[name].saw(at_ms, submitted, ended)
        # A look comes a little early as often as a little late.
        if abs(at_ms - self._sampled_ms) >= SAMPLE_EVERY_MS - _JITTER_MS:
            self._sampled_ms = at_ms
            for queue in snapshot.queues:
                self.by_queue[queue.name].backlog.append(queue.backlog)
        return self.by_queue
