"""What a worker uses of its host: itself, its fork servers, and everything that runs in them.

Invariant: memory that processes share counts once, and processor time of a process that has ended
counts on, so that the sums are those that the host sees.
"""

import asyncio
import time
from typing import TypedDict

import psutil

LOOK_S = 10.0


class OnCard(TypedDict):
    """The fields of a card that are about it."""

    began_s: float
    memory_bytes: int
    busy_cpus: float


class Footprint:
    """Memory and processor time of this process and all below it."""

    def __init__(self) -> None:
        self.began_s = time.time()
        #: Memory in bytes: what is shared by several counts for each in part (PSS).
        self.memory_bytes = 0
        #: Processors that were busy since the look before, on average.
        self.busy_cpus = 0.0
        self._cpu_s, self._at_s = 0.0, time.monotonic()

    def on_card(self) -> "OnCard":
        """Return what the worker's card says of it."""
        return {
            "began_s": self.began_s,
            "memory_bytes": self.memory_bytes,
            "busy_cpus": round(self.busy_cpus, 2),
        }

    async def look(self) -> None:
        """Look again; in a thread, since each process takes the kernel a moment."""
        await asyncio.to_thread(self._look)

    def _look(self) -> None:
        own = psutil.Process()
        memory_bytes, cpu_s = 0, 0.0
        for process in [own, *own.children(recursive=True)]:
            try:
                memory_bytes += int(process.memory_full_info().pss)
                times = process.cpu_times()
            except psutil.Error:
                continue  # it ended a moment ago
            cpu_s += times.user + times.system + times.children_user + times.children_system
        now_s = time.monotonic()
        # A process that nobody waited for takes its seconds with it.
        spent_s = max(0.0, cpu_s - self._cpu_s)
        self.busy_cpus = spent_s / max(0.001, now_s - self._at_s)
        self.memory_bytes, self._cpu_s, self._at_s = memory_bytes, cpu_s, now_s
