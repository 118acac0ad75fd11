"""How long messages wait and run, counted in the broker by the scripts that move them.

Invariant: an observation is counted in the same atomic script as the transition that it belongs to,
so the death of a worker, a restart of the exporter and a second exporter lose and double nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .buckets import BUCKETS
from .connection import SyncConnection
from .scripts import text


@dataclass(frozen=True)
class Histogram:
    """Observations of one kind of message in one queue.

    Args:
        counts: Observations in each bucket and, last, beyond all of them; not cumulative.
        sum: Sum of what was observed, in seconds or bytes.
    """

    counts: Sequence[int]
    sum: float

    @property
    def total(self) -> int:
        """How many observations there are."""
        return sum(self.counts)


#: By what is measured, queue and kind.
Histograms = Mapping[tuple[str, str, str], Histogram]


def empty(what: str) -> Histogram:
    """Return a histogram without observations."""
    return Histogram([0] * (len(BUCKETS[what].bounds) + 1), 0.0)


def read_histograms(connection: SyncConnection) -> Histograms:
    """Read every histogram of a namespace.

    Raises:
        BrokerUnavailable: No answer in time.
    """
    name = connection.keys.name("histograms")
    flat: Mapping[Any, Any] = connection.retrying(lambda: connection.client.hgetall(name))
    counts: dict[tuple[str, str, str], list[int]] = {}
    sums: dict[tuple[str, str, str], float] = {}
    for field, value in flat.items():
        what, _, rest = text(field).partition("|")
        place, _, bucket = rest.rpartition("|")
        queue, _, kind = place.rpartition("|")
        known = BUCKETS.get(what)
        if known is None or not value.isdigit():
            continue  # written by another hand
        is_sum = bucket == f"sum_{known.unit}"
        if not is_sum and not bucket.isdigit():
            continue
        counts.setdefault((what, queue, kind), list(empty(what).counts))
        if is_sum:
            sums[what, queue, kind] = int(value) / known.in_unit
        elif 0 < int(bucket) <= len(known.bounds) + 1:
            counts[what, queue, kind][int(bucket) - 1] += int(value)
    return {place: Histogram(each, sums.get(place, 0.0)) for place, each in counts.items()}
