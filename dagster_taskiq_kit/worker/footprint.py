"""What a worker uses of its host: itself, its fork servers, and everything that runs in them.

Invariant: memory that processes share counts once, and processor time of a process that has ended
counts on, so that the sums are those that the host sees.
"""

import time
from collections.abc import Mapping, Sequence
from typing import TypedDict

import psutil

from ..broker.worker_cards import InUse

LOOK_S = 10.0


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
        self._cpu_s, self._at_s = 0.0, time.monotonic()

    def on_card(self) -> "OnCard":
        """Return what the worker's card says of it."""
        return {
            "began_s": self.began_s,
            "memory_bytes": self.memory_bytes,
            "busy_cpus": round(self.busy_cpus, 2),
            "using": dict(self.using),
        }

    def look(self, executing: Mapping[str, int]) -> None:
        """Look again; each process takes the kernel a moment.

        Args:
            executing: The process of each message that executes, by the message's id.
        """
        own = psutil.Process()
        seen = {each.pid: found for each in _below(own) if (found := _in_use(each)) is not None}
        cpu_s, now_s = sum(each.cpu_s for each in seen.values()), time.monotonic()
        # A process that nobody waited for takes its seconds with it.
        self.busy_cpus = max(0.0, cpu_s - self._cpu_s) / max(0.001, now_s - self._at_s)
        self.memory_bytes = sum(each.memory_bytes for each in seen.values())
        self._cpu_s, self._at_s = cpu_s, now_s
        self.using = {task_id: _sum(pid, seen) for task_id, pid in executing.items() if pid in seen}


def _below(process: psutil.Process) -> Sequence[psutil.Process]:
    """Return a process and all below it; none when it is gone."""
    try:
        return [process, *process.children(recursive=True)]
    except psutil.Error:
        return []


def _in_use(process: psutil.Process) -> InUse | None:
    try:
        times = process.cpu_times()
        cpu_s = times.user + times.system + times.children_user + times.children_system
        return InUse(int(process.memory_full_info().pss), cpu_s)
    except psutil.Error:
        return None  # it ended a moment ago


def _sum(pid: int, seen: Mapping[int, InUse]) -> InUse:
    try:
        family = [each.pid for each in _below(psutil.Process(pid)) if each.pid in seen]
    except psutil.Error:
        family = [pid]
    used = [seen[each] for each in family]
    cpu_s = round(sum(each.cpu_s for each in used), 2)
    return InUse(sum(each.memory_bytes for each in used), cpu_s)
