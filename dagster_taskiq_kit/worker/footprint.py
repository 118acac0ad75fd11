"""What a worker uses of its host: itself, its fork servers, and everything that runs in them.

Invariant: memory that processes share counts once, and processor time of a process that has ended
counts on, so that the sums are those that the host sees.
"""

import time
from collections.abc import Mapping
from typing import TypedDict

import psutil

from ..broker.worker_cards import InUse

LOOK_S = 10.0
#: A look at processes with very much memory takes the kernel long; it is taken less often then.
_TIMES_ITS_COST = 50

Family = Mapping[int, tuple[int, InUse]]


class OnCard(TypedDict):
    """The fields of a card that are about it."""

    began_s: float
    memory_bytes: int
    busy_cpus: float
    using: Mapping[str, InUse]


class Footprint:
    """Memory and processor time of this process and all below it."""

    def __init__(self) -> None:
        self.began_s = time.time()
        #: Memory in bytes: what is shared by several counts for each in part (PSS).
        self.memory_bytes = 0
        #: Processors that were busy since the look before, on average.
        self.busy_cpus = 0.0
        #: What each message that executes has used, by its id.
        self.using: Mapping[str, InUse] = {}
        #: Of each process the message, the CPU seconds before it, and those of the last look.
        self._of_pid: dict[int, tuple[str, float, float]] = {}
        self._cpu_s, self._at_s, self._took_s = 0.0, time.monotonic(), 0.0

    def on_card(self) -> "OnCard":
        """Return what the worker's card says of it."""
        return {
            "began_s": self.began_s,
            "memory_bytes": self.memory_bytes,
            "busy_cpus": round(self.busy_cpus, 2),
            "using": dict(self.using),
        }

    def look(self, executing: Mapping[str, int]) -> None:
        """Look again, unless the last look is so recent that looking would cost more than it tells.

        Args:
            executing: The process of each message that executes, by the message's id.
        """
        began_s, worked_s = time.monotonic(), time.thread_time()
        if began_s - self._at_s < _TIMES_ITS_COST * self._took_s:
            return
        family = _family_of_this_process()
        cpu_s = sum(used.cpu_s for _, used in family.values())
        # A process that nobody waited for takes its seconds with it.
        self.busy_cpus = max(0.0, cpu_s - self._cpu_s) / max(0.001, began_s - self._at_s)
        self.memory_bytes = sum(used.memory_bytes for _, used in family.values())
        present = {task_id: pid for task_id, pid in executing.items() if pid in family}
        self.using = {
            task_id: self._own_part(task_id, pid, _sum(pid, family))
            for task_id, pid in present.items()
        }
        self._of_pid = {pid: each for pid, each in self._of_pid.items() if pid in family}
        self._cpu_s, self._at_s, self._took_s = cpu_s, began_s, time.thread_time() - worked_s

    def _own_part(self, task_id: str, pid: int, used: InUse) -> InUse:
        """Return what a message has used of what its process has, which may have had others."""
        before, base_s, last_s = self._of_pid.get(pid, (task_id, 0.0, 0.0))
        base_s = base_s if before == task_id else last_s
        self._of_pid[pid] = (task_id, base_s, used.cpu_s)
        return InUse(used.memory_bytes, round(used.cpu_s - base_s, 2))


def _family_of_this_process() -> Family:
    """Return this process and all below it: parent and what it uses, by pid."""
    own = psutil.Process()
    family: dict[int, tuple[int, InUse]] = {}
    for each in (own, *own.children(recursive=True)):
        try:
            times = each.cpu_times()
            cpu_s = times.user + times.system + times.children_user + times.children_system
            info = each.memory_full_info()
            memory_bytes = int(getattr(info, "pss", info.uss))  # PSS is of Linux alone
            family[each.pid] = (each.ppid(), InUse(memory_bytes, cpu_s))
        except psutil.Error:
            continue  # it ended a moment ago
    return family


def _sum(pid: int, family: Family) -> InUse:
    """Return what a process and all below it use."""
    below = {pid}
    while more := {each for each, (parent, _) in family.items() if parent in below} - below:
        below |= more
    used = [family[each][1] for each in below if each in family]
    cpu_s = round(sum(each.cpu_s for each in used), 2)
    return InUse(sum(each.memory_bytes for each in used), cpu_s)
