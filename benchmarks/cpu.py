"""CPU seconds of whole process trees.

Invariant: nothing is counted twice or forgotten: a living process counts itself and the children
that it has reaped, and every living descendant counts likewise.
"""

import os
from collections.abc import Mapping

import psutil

#: What the kit calls its processes; not imported, for where dagster-celery is there is no kit.
FORK_SERVER, CHILD = "fork server", "child"


def own_cpu_s() -> float:
    """Return what this process and the children that it has reaped have used."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def parts_cpu_s(roots: Mapping[str, int]) -> dict[str, float]:
    """Return what the trees under some processes have used, reaped descendants included.

    Args:
        roots: Process ids by the name of their part.

    Returns:
        Seconds by part; below a worker of the kit, ``fork server`` and ``children`` are parts too.

    Raises:
        psutil.NoSuchProcess: One of the roots is gone.
    """
    parts: dict[str, float] = {}

    def add(part: str, seconds: float) -> None:
        parts[part] = parts.get(part, 0.0) + seconds

    for name, process_id in roots.items():
        root = psutil.Process(process_id)
        for process in (root, *root.children(recursive=True)):
            try:
                comm, times = process.name(), process.cpu_times()
            except psutil.NoSuchProcess:
                continue  # reaped a moment ago
            part = {FORK_SERVER: "fork server", CHILD: "children"}.get(comm, name)
            reaped = "children" if comm in (FORK_SERVER, CHILD) else part
            add(part, times.user + times.system)
            add(reaped, times.children_user + times.children_system)
    return parts


def machine_busy_s() -> float:
    """Return for how long the machine's cores were busy, whoever kept them so."""
    times = psutil.cpu_times()
    return sum(times) - times.idle - getattr(times, "iowait", 0.0) - getattr(times, "guest", 0.0)
