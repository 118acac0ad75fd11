"""CPU seconds of whole process trees.

Invariant: nothing is counted twice or forgotten: a living process counts itself and the children
that it has reaped, and every living descendant counts likewise.
"""

import os
from collections.abc import Iterable

import psutil


def own_cpu_s() -> float:
    """Return what this process and the children that it has reaped have used."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def trees_cpu_s(process_ids: Iterable[int]) -> float:
    """Return what the trees under these processes have used, reaped descendants included.

    Raises:
        psutil.NoSuchProcess: One of the roots is gone.
    """
    total_s = 0.0
    for process_id in process_ids:
        root = psutil.Process(process_id)
        for process in (root, *root.children(recursive=True)):
            try:
                times = process.cpu_times()
            except psutil.NoSuchProcess:
                continue  # reaped a moment ago
            total_s += times.user + times.system + times.children_user + times.children_system
    return total_s


def machine_busy_s() -> float:
    """Return for how long the machine's cores were busy, whoever kept them so."""
    times = psutil.cpu_times()
    return sum(times) - times.idle - getattr(times, "iowait", 0.0) - getattr(times, "guest", 0.0)
