"""How many threads of a numeric library a step gets: its share of the machine's cores.

Invariant: what the user has set stands. Without it each library would begin a thread a core in
every step: eight slots on eight cores would be 64 threads that wait for each other.
"""

import math
import os
from collections.abc import MutableMapping
from pathlib import Path

#: Read by OpenMP, and by those that read their own first (OpenBLAS, MKL, numexpr).
_OF_OPENMP = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
_OPENMP = "OMP_NUM_THREADS"
_OTHERS = ("POLARS_MAX_THREADS", "RAYON_NUM_THREADS")
#: cgroup v2: quota and period in microseconds, or "max".
_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def usable_cores() -> int:
    """Return how many cores this process may use at once, by affinity and by its container."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    try:
        quota, period = _QUOTA.read_text().split()
        limited = math.ceil(int(quota) / int(period))
    except (OSError, ValueError):
        return cores or 1
    return max(1, min(cores or 1, limited))


def share_cores(slots: int, environment: MutableMapping[str, str] = os.environ) -> int:
    """Set the thread counts of numeric libraries where they are not set; returns what a step gets.

    To be called before any of them is imported.

    Args:
        slots: Steps that the worker executes at once.
        environment: Where to set them.
    """
    share = max(1, usable_cores() // max(1, slots))
    if _OPENMP not in environment:
        for name in (_OPENMP, *_OF_OPENMP):
            environment.setdefault(name, str(share))
    for name in _OTHERS:
        environment.setdefault(name, str(share))
    return share
