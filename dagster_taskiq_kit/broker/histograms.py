"""How long messages wait and run, counted in the broker by the scripts that move them.

Invariant: an observation is counted in the same atomic script as the transition that it belongs to,
so the death of a worker, a restart of the exporter and a second exporter lose and double nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .buckets import BUCKETS_S
from .connection import SyncConnection
from .scripts import text

_SUM = "sum_ms"


@dataclass(frozen=True)
class Histogram:
    """Observations of one kind of message in one queue.

    Args:
        counts: Observations in each bucket and, last, beyond all of them; not cumulative.
        sum_s: Sum of what was observed, in seconds.
    """

    counts: Sequence[int]
    sum_s: float

    @property
    def total(self) -> int:
        """How many observations there are."""
        return sum(self.counts)


#: By what is measured, queue and kind.
Histograms = Mapping[tuple[str, str, str], Histogram]


def empty(what: str) -> Histogram:
    """Return a histogram without observations."""
    return Histogram([0] * (len(BUCKETS_S[what]) + 1), 0.0)


def read_histograms(connection: SyncConnection) -> Histograms:
    """Read every histogram of a namespace.

    Raises:
        BrokerUnavailable: No answer in time.
    """
    name = connection.keys.name("histograms")
    flat: Mapping[Any, Any] = connection.retrying(lambda: connection.client.hgetall(name))
    counts: dict[tuple[str, str, str], list[int]] = {}
    sums_s: dict[tuple[str, str, str], float] = {}
    for field, value in flat.items():
        what, _, rest = text(field).partition("|")
        place, _, bucket = rest.rpartition("|")
        queue, _, kind = place.rpartition("|")
        if what not in BUCKETS_S or not value.isdigit() or not (bucket == _SUM or bucket.isdigit()):
            continue  # written by another hand
        counts.setdefault((what, queue, kind), list(empty(what).counts))
        if bucket == _SUM:
            sums_s[what, queue, kind] = int(value) / 1000
        elif 0 < int(bucket) <= len(BUCKETS_S[what]) + 1:
            counts[what, queue, kind][int(bucket) - 1] += int(value)
    return {place: Histogram(each, sums_s.get(place, 0.0)) for place, each in counts.items()}
