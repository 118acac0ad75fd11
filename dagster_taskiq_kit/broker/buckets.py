"""The buckets of every histogram that the scripts keep, stated once.

Invariant: the scripts get them rendered, so Python and the broker cannot disagree. A changed list
needs another key: what was counted stands under the number of its bucket.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..config.settings import QueueObjective


@dataclass(frozen=True)
class Buckets:
    """How one thing is counted.

    Args:
        bounds: Upper bounds of the buckets, in seconds or bytes.
        unit: The unit of the whole numbers that the scripts count in: ``ms`` or ``kib``.
        in_unit: One second, or one byte, in that unit.
    """

    bounds: Sequence[float]
    unit: str = "ms"
    in_unit: float = 1_000


_MIB, _GIB = 2**20, 2**30

#: From submit to start of a delivery; the schedule-to-start latency of Temporal and Celery's
#: exporters, from what a warm step takes to an hour.
WAIT_BUCKETS_S = (0.025, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600)
#: From start to end of a delivery, from 10 ms to two days.
DURATION_BUCKETS_S = (
    0.05, 0.25, 1, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21600, 86400, 172800,
)  # fmt: skip
#: What a process has used of the CPU, from a warm step's to a day on one core.
CPU_BUCKETS_S = (0.05, 0.1, 0.25, 1, 5, 10, 30, 60, 300, 600, 1800, 3600, 21600, 86400)
#: The most memory of a process, from a warm step's to a large machine's.
MEMORY_BUCKETS_BYTES = (
    128 * _MIB, 256 * _MIB, 512 * _MIB, _GIB, 2 * _GIB, 4 * _GIB, 8 * _GIB, 16 * _GIB, 32 * _GIB,
    64 * _GIB, 128 * _GIB,
)  # fmt: skip
BUCKETS: Mapping[str, Buckets] = {
    "wait": Buckets(WAIT_BUCKETS_S),
    "duration": Buckets(DURATION_BUCKETS_S),
    "cpu": Buckets(CPU_BUCKETS_S),
    "peak_memory": Buckets(MEMORY_BUCKETS_BYTES, "kib", 1 / 1024),
}


def lua_buckets() -> str:
    """Return Lua source with the buckets, and the objective of a queue that nobody declared."""
    rows = [
        f"  {what} = {{sum = 'sum_{each.unit}', "
        f"{', '.join(str(int(bound * each.in_unit)) for bound in each.bounds)}}},"
        for what, each in BUCKETS.items()
    ]
    return "\n".join(
        ["local BUCKETS = {", *rows, "}", f"local DEFAULT_SLO_S = {QueueObjective().slo_s:g}"]
    )
