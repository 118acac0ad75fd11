"""A clock that goes on while the machine sleeps, and that every process of a machine shares.

Invariant: deadlines that one process gives another are in this clock; a suspended laptop or a
frozen virtual machine has missed them when it wakes.
"""

import time


def boot_time_s() -> float:
    """Return the seconds since the machine booted, sleep included."""
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)  # macOS has the latter only
    return time.clock_gettime(clock)
