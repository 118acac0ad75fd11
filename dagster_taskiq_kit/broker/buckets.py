"""The buckets of every histogram that the scripts keep, stated once.

Invariant: the scripts get them rendered, so Python and the broker cannot disagree. A changed list
needs another key: what was counted stands under the number of its bucket.
"""

from collections.abc import Mapping, Sequence

from ..config.settings import QueueObjective

#: From submit to start of a delivery; the schedule-to-start latency of Temporal and Celery's
#: exporters, from what a warm step takes to an hour.
WAIT_BUCKETS_S = (0.025, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600)
#: From start to end of a delivery, from 10 ms to two days.
DURATION_BUCKETS_S = (
    0.05, 0.25, 1, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21600, 86400, 172800,
)  # fmt: skip
BUCKETS_S: Mapping[str, Sequence[float]] = {
    "wait": WAIT_BUCKETS_S,
    "duration": DURATION_BUCKETS_S,
}


def lua_buckets() -> str:
    """Return Lua source with the buckets, and the objective of a queue that nobody declared."""
    rows = [
        f"  {what} = {{{', '.join(str(int(bound_s * 1000)) for bound_s in bounds)}}},"
        for what, bounds in BUCKETS_S.items()
    ]
    return "\n".join(
        ["local BUCKETS_MS = {", *rows, "}", f"local DEFAULT_SLO_S = {QueueObjective().slo_s:g}"]
    )
